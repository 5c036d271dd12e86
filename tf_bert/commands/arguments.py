"""How the words after a command are read: as fields of a configuration, or as options of its own."""

import argparse
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tf_bert.errors import UsageError

_NUMBER = r"\d{1,15}(\.\d{1,15})?"


CONFIG_COMMAND_USAGE = "tf-bert {command} [--config FILE.yaml] [--FIELD VALUE ...]"


START_NUMBERS = {
    "--ranks": (r"[1-9]\d{0,5}", "how many ranks to start on this machine, such as --ranks 2"),
    "--tokens-per-second": (_NUMBER, "a speed above 0, such as --tokens-per-second 50000"),
    "--price": (_NUMBER, "a price above 0, such as --price 2.5"),
}


def parser_of(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"tf-bert {command}", description=description)


def read_config(
    cls: Any,
    command: str,
    arguments: Sequence[str],
    options: Mapping[str, str] | None = None,
    complete: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> Any:
    from tf_bert import config

    if "-h" in arguments or "--help" in arguments:
        print(_config_help(cls, command, options or {}))
        raise SystemExit(0)
    switches = {field.key for field in config.describe_fields(cls) if field.is_switch}
    values = parse_overrides(arguments, switches)
    path = values.pop("config", None)
    return config.load(cls, path, values, complete)


def parse_overrides(arguments: Sequence[str], switches: Collection[str] = ()) -> dict[str, Any]:
    """`--field value`, `--field=value` and `--field value value` as a mapping; dashes in names read as underscores.

    Args:
      arguments: the words after the command.
      switches: fields that are true when they stand without a value.

    Raises:
      UsageError: if a value has no field or a field no value.
    """
    values: dict[str, list[str]] = {}
    current: list[str] | None = None
    for argument in arguments:
        if argument.startswith("--"):
            name, has_value, value = argument[2:].partition("=")
            current = values.setdefault(name.replace("-", "_"), [])
            if has_value:
                current.append(value)
        elif current is None:
            raise UsageError(f"found '{argument}', expected --FIELD VALUE; --help lists the fields")
        else:
            current.append(argument)
    for name, found in values.items():
        if not found and name in switches:
            found.append("true")
        if not found:
            raise UsageError(f"--{name}: its value is missing; write --{name} VALUE")
    return {name: _plain(found) for name, found in values.items()}


def _plain(found: list[str]) -> Any:
    if len(found) > 1:
        return found
    return None if found[0] == "null" else found[0]


def _config_help(cls: Any, command: str, options: Mapping[str, str]) -> str:
    import textwrap

    from tf_bert.config import describe_fields

    lines = [f"usage: {CONFIG_COMMAND_USAGE.format(command=command)}", "", cls.__doc__, ""]
    lines += [f"  --{option}\n      {text}\n" for option, text in options.items()]
    lines += ["A field on the command line wins over the YAML file. Fields, with their defaults:", ""]
    for field in describe_fields(cls):
        lines.append(f"  --{field.key} ({field.default})")
        lines += textwrap.wrap(field.doc, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def take_options(
    arguments: Sequence[str], switches: Sequence[str], numbers: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of switches and of some of `START_NUMBERS`, and the arguments that are neither."""

    def number(option: str) -> Callable[[str], float]:
        def read(text: str) -> float:
            if not re.fullmatch(START_NUMBERS[option][0], text) or not float(text):
                raise ValueError(text)
            return float(text)

        return read

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for switch in switches:
        parser.add_argument(switch, action="store_true")
    for option in numbers:
        parser.add_argument(option, type=number(option))
    try:
        options, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        option = str(error.argument_name)
        known = START_NUMBERS.get(option)
        raise UsageError(f"{option}: expected {known[1]}" if known else str(error)) from None
    return vars(options), others
