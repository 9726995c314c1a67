# SPDX-License-Identifier: Apache-2.0
"""`reflex completion SHELL`: print a script that completes verbs, options, choices and files.

The script holds everything: no key press starts Python.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator

from reflex_ros.cli.commands import FILES, FOLDERS, Command, commands, completed, takes_value
from reflex_ros.cli.parser import Parser

Completed = str | tuple[str, ...]


def main(argv: list[str] | None = None) -> int:
    """Print the script. 0."""
    shell: str = parser().parse_args(sys.argv[1:] if argv is None else argv).shell
    print("\n".join(SHELLS[shell](list(commands()))))
    return 0


def parser() -> Parser:
    """Return the command line of `reflex completion`."""
    made = Parser(
        prog="reflex completion",
        description="Print a script that completes the command lines of reflex.",
        examples=(
            "source <(reflex completion bash)                                 in ~/.bashrc",
            "source <(reflex completion zsh)                                  in ~/.zshrc, after compinit",
            "reflex completion fish > ~/.config/fish/completions/reflex.fish",
        ),
    )
    made.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help=", ".join(SHELLS))
    return made


def _bash(found: list[Command]) -> Iterator[str]:
    yield "# Completion of reflex for bash, printed by `reflex completion bash`."
    yield "_reflex() {"
    yield "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} options="
    yield "  COMPREPLY=()"
    yield '  _reflex_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$word"); }'
    yield '  _reflex_files() { compopt -o filenames; mapfile -t COMPREPLY < <(compgen "$1" -- "$word"); }'
    verbs = [command.words[0] for command in found if len(command.words) == 1]
    yield f'  if ((COMP_CWORD == 1)); then _reflex_words "{" ".join(verbs)}"; return; fi'
    yield "  case $command in"
    for command in found:
        if command.below:
            yield f"    {command.words[0]})"
            yield f'      if ((COMP_CWORD == 2)); then _reflex_words "{" ".join([*command.below, "--help"])}"; return; fi'
            yield '      command="$command ${COMP_WORDS[2]}" ;;'
    yield "  esac"
    yield '  case "$command|$before" in'
    for command in found:
        yield from _bash_values(command)
    yield "  esac"
    yield "  case $command in"
    for command in found:
        flags = " ".join(flag for option in command.options for flag in option.option_strings)
        yield f'    {shlex.quote(" ".join(command.words))}) options="{flags}" ;;'
    yield "  esac"
    yield '  if [[ $word == -* ]]; then _reflex_words "$options"; return; fi'
    yield "  case $command in"
    for command in found:
        for place in command.places[:1]:
            yield f"    {shlex.quote(' '.join(command.words))}) {_bash_answer(completed(command, place))} ;;"
    yield "  esac"
    yield "}"
    yield "complete -F _reflex reflex"


def _bash_values(command: Command) -> Iterator[str]:
    """Yield a line for each way in which values of this command's options are completed."""
    by_answer: dict[Completed, list[str]] = {}
    for option in command.options:
        if takes_value(option):
            by_answer.setdefault(completed(command, option), []).extend(option.option_strings)
    for answer, flags in by_answer.items():
        patterns = "|".join(f'"{" ".join(command.words)}|{flag}"' for flag in flags)
        yield f"    {patterns}) {_bash_answer(answer)}; return ;;"


def _bash_answer(answer: Completed) -> str:
    if isinstance(answer, tuple):
        return f'_reflex_words "{" ".join(answer)}"' if answer else ":"
    return f"_reflex_files {'-d' if answer == FOLDERS else '-f'}"


def _zsh(found: list[Command]) -> Iterator[str]:
    yield "#compdef reflex"
    yield "# Completion of reflex for zsh, printed by `reflex completion zsh`."
    yield "_reflex() {"
    yield "  local curcontext=$curcontext state line"
    yield "  if ((CURRENT == 2)); then"
    verbs = {command.words[0]: command.what for command in found if len(command.words) == 1}
    yield f"    local -a verbs=({_zsh_described(verbs)})"
    yield "    _describe verb verbs; return"
    yield "  fi"
    yield "  local command=$words[2]"
    yield "  case $command in"
    for command in found:
        if command.below:
            yield f"    {command.words[0]})"
            yield "      if ((CURRENT == 3)); then"
            yield f"        local -a below=({_zsh_described(command.below)}); _describe command below; return"
            yield "      fi"
            yield '      command="$command $words[3]"; shift words; ((CURRENT--)) ;;'
    yield "  esac"
    yield "  shift words; ((CURRENT--))"
    yield "  case $command in"
    for command in found:
        specs = [spec for option in command.options for spec in _zsh_option(command, option)]
        specs += [_zsh_place(command, place) for place in command.places]
        yield f"    {shlex.quote(' '.join(command.words))}) _arguments -s {' '.join(map(shlex.quote, specs))} ;;"
    yield "  esac"
    yield "}"
    yield "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _reflex; else compdef _reflex reflex; fi"


def _zsh_described(words: dict[str, str]) -> str:
    return " ".join(shlex.quote(f"{name}:{what}") for name, what in words.items())


def _zsh_option(command: Command, option: argparse.Action) -> Iterator[str]:
    text = re.sub(r"([\[\]:])", r"\\\1", _first_sentence(option))
    for flag in option.option_strings:
        value = f":{option.metavar or option.dest}:{_zsh_answer(completed(command, option))}"
        yield f"*{flag}[{text}]{value if takes_value(option) else ''}"


def _zsh_place(command: Command, place: argparse.Action) -> str:
    many = "*" if place.nargs in ("*", "+") else ":" if place.nargs == "?" else ""
    return f"{many}:{place.metavar or place.dest}:{_zsh_answer(completed(command, place))}"


def _zsh_answer(answer: Completed) -> str:
    if isinstance(answer, tuple):
        return f"({' '.join(answer)})" if answer else ""
    return "_files -/" if answer == FOLDERS else "_files"


def _fish(found: list[Command]) -> Iterator[str]:
    yield "# Completion of reflex for fish, printed by `reflex completion fish`."
    yield "complete -c reflex -f"
    for command in found:
        seen = " ".join(
            f"__fish_seen_subcommand_from {word}{'; and' if at + 1 < len(command.words) else ''}"
            for at, word in enumerate(command.words)
        )
        before = (
            "__fish_use_subcommand"
            if len(command.words) == 1
            else f"__fish_seen_subcommand_from {command.words[0]}"
        )
        if len(command.words) > 1:
            before += f"; and not __fish_seen_subcommand_from {command.words[1]}"
        yield f"complete -c reflex -n {shlex.quote(before)} -a {command.words[-1]} -d {_fish_quote(command.what)}"
        for option in command.options:
            yield f"complete -c reflex -n {shlex.quote(seen)} {_fish_option(command, option)}"
        for place in command.places[:1]:
            yield f"complete -c reflex -n {shlex.quote(seen)} {_fish_answer(completed(command, place))}"


def _fish_option(command: Command, option: argparse.Action) -> str:
    flags = " ".join(
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.option_strings
    )
    value = _fish_answer(completed(command, option), value=True) if takes_value(option) else ""
    return f"{flags} {value} -d {_fish_quote(_first_sentence(option))}"


def _fish_answer(answer: Completed, *, value: bool = False) -> str:
    if isinstance(answer, tuple):
        return (
            f"{'-x ' if value else ''}-a {_fish_quote(' '.join(answer))}"
            if answer
            else "-x"
            if value
            else "-f"
        )
    if answer == FILES:
        return "-r -F" if value else "-F"
    return f"{'-x ' if value else ''}-a '(__fish_complete_directories)'"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _first_sentence(option: argparse.Action) -> str:
    return (
        (option.help or "").replace("%%", "%").partition(". ")[0].partition(" [default")[0].removesuffix(".")
    )


SHELLS: dict[str, Callable[[list[Command]], Iterator[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


if __name__ == "__main__":
    sys.exit(main())
