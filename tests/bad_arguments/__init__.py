"""Bad arguments of every public function, and what must come of them.

values.py holds the kinds of arguments, the other modules the functions with the kinds of their
arguments; tests/python/test_bad_arguments.py tries them all.

A `Case` is one public function with arguments that it takes, and the kind of each. `check` changes
them one at a time: a bad value must end in a TypeError or ValueError that names the argument, and
another form of the same value must give the same bits as the value itself.
"""

from dataclasses import dataclass, field

import numpy as np

from bad_arguments.values import Floats, Out, Outs


@dataclass
class Case:
    """A public function.

    make : returns the function and good arguments by name, all new.
    kinds : of the arguments; `check` gives None for those that are not in what `make` returned.
    result : from what is returned to what is compared; by default all of it.
    outputs : from what is returned to what `out` may be given for.
    """

    make: object
    kinds: dict = field(default_factory=dict)
    result: object = None
    outputs: object = None


def bits(value):
    """A result as something that can be compared exactly."""
    if isinstance(value, (tuple, list)):
        return [bits(item) for item in value]
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return type(value).__name__, repr(value)


def run(case, name=None, value=None):
    """Call with one argument changed."""
    function, arguments = case.make()
    if name is not None:
        arguments[name] = value
    result = function(**arguments)
    return bits(result if case.result is None else case.result(result))


def refusals(case, name, kind, value):
    """What is wrong with how bad values are refused, as lines; and how many were tried."""
    found, tried = [], 0
    for label, wrong in kind.bad(value):
        tried += 1
        try:
            run(case, name, wrong)
        except (TypeError, ValueError) as error:
            if not any(word in str(error) for word in (name, *kind.named)):
                found.append(f"{name} = {label}: does not name it: {error!r}")
        except Exception as error:
            found.append(f"{name} = {label}: {error!r}")
        else:
            found.append(f"{name} = {label}: accepted")
    return found, tried


def differences(case, name, kind, value, expected):
    found, tried = [], 0
    for label, other in kind.same(value) if value is not None else ():
        tried += 1
        try:
            result = run(case, name, other)
        except Exception as error:
            found.append(f"{name} = {label}: refused: {error!r}")
            continue
        if result != expected:
            found.append(f"{name} = {label}: another result")
    return found, tried


def overlaps(case, name, results):
    """What is wrong where a result's memory and an argument's have one element in common."""
    several = isinstance(results, (tuple, list))
    found, tried = [], 0
    for place, result in enumerate(results if several else [results]):
        for other, value in case.make()[1].items():
            if not isinstance(case.kinds.get(other), Floats) or value is None:
                continue
            function, arguments = case.make()
            memory = np.zeros(value.size + result.size - 1, value.dtype)
            arguments[other] = memory[: value.size].reshape(value.shape)
            arguments[other][...] = value
            out = memory[value.size - 1 :].reshape(result.shape)
            arguments[name] = (
                tuple(out if i == place else None for i in range(len(results))) if several else out
            )
            tried += 1
            try:
                function(**arguments)
            except ValueError as error:
                if f"{name}" in str(error) and "memory" in str(error):
                    continue
                found.append(f"{name}[{place}] overlaps {other}: {error!r}")
            else:
                found.append(f"{name}[{place}] overlaps {other}: accepted")
    return found, tried


def results_of(case):
    """What `out` looks like: the arrays that the function returns, without losses and tables."""
    function, arguments = case.make()
    result = function(**arguments)
    return result if case.outputs is None else case.outputs(result)


def check(case):
    """Try everything; returns the number of calls, fails with a line per wrong answer."""
    expected = run(case)
    found, total = [], 0
    for name, kind in case.kinds.items():
        if isinstance(kind, (Out, Outs)):
            value = results_of(case)
            attempts = [overlaps(case, name, value)]
        else:
            value, attempts = case.make()[1].get(name), []
        attempts.append(refusals(case, name, kind, value))
        attempts.append(differences(case, name, kind, value, expected))
        for lines, tried in attempts:
            found += lines
            total += tried
    assert run(case) == expected, "the last good call differs from the first"
    assert not found, "\n".join(found)
    return total
