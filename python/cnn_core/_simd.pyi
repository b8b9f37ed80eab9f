active_isa: str
compiler: str

def supported_isas() -> list[str]: ...
