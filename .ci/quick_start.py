"""Run the commands under README's heading "Quick start" as they stand, in this folder."""

import re
import subprocess
import sys
from pathlib import Path


def commands(text: str) -> list[str]:
    section = re.search(r"^## Quick start\n(.*?)(?=^## )", text, re.M | re.S)
    if not section:
        sys.exit("README: no section 'Quick start'")
    return [block.strip() for block in re.findall(r"```sh\n(.*?)```", section[1], re.S)]


found = commands(Path(sys.argv[1]).read_text())
if len(found) != 2:
    sys.exit(f"README: expected two commands under 'Quick start', found {len(found)}")
for command in found:
    print(f"$ {command}", flush=True)
    code = subprocess.run(command, shell=True).returncode
    if code:
        sys.exit(f"README's command failed with {code}: {command}")
