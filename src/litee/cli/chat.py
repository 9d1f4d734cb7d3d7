"""`litee chat`: talk to a model in the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litee.cli.generate import setting_help
from litee.config import load_settings
from litee.errors import ConfigError, LiteeError
from litee.predict.generation_settings import GenerateSettings

if TYPE_CHECKING:
    from rich.console import Console

    from litee.predict.generation import Engine
    from litee.records import Message

_COMMANDS: Mapping[str, str] = {
    "/adapter [NAME]": "switch to an adapter; without a name, to the plain model",
    "/system [TEXT]": "set the system message, or drop it; starts anew",
    "/reset": "start anew",
    "/retry": "ask for another answer to the last question",
    "/save FILE.jsonl": "add the dialogue to a file of demonstrations",
    "/help": "this list",
    "/quit": "leave (also Ctrl-D); Ctrl-C ends an answer",
}


def named_folders(given: list[str] | None) -> dict[str, Path]:
    """`name=folder` or `folder` → name → folder.

    Raises:
        ConfigError: a name twice, or none.

    >>> named_folders(["runs/short", "b=runs/long"])["b"].as_posix()
    'runs/long'
    """
    found: dict[str, Path] = {}
    for text in given or []:
        name, equals, folder = text.partition("=")
        path = Path(folder if equals else text)
        name = name if equals else path.name
        if not name or "." in name or name in found:
            fix = "write --adapter NAME=FOLDER with different names without dots"
            raise ConfigError(f"adapter name {name!r} is empty, taken or has a dot", fix=fix)
        found[name] = path
    return found


def chat(
    *,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "--model", help=setting_help("backbone"))
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(help="PEFT adapter: FOLDER or NAME=FOLDER; repeatable.")
    ] = None,
    system: Annotated[str | None, typer.Option(help=setting_help("system"))] = None,
    preset: Annotated[str | None, typer.Option(help=setting_help("preset"))] = None,
    temperature: Annotated[float | None, typer.Option(help=setting_help("temperature"))] = None,
    top_p: Annotated[float | None, typer.Option(help=setting_help("top_p"))] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help=setting_help("repetition_penalty"))
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help=setting_help("max_new_tokens"))] = None,
    threads: Annotated[int | None, typer.Option(help=setting_help("threads"))] = None,
    seed: Annotated[int | None, typer.Option(help=setting_help("seed"))] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
) -> None:
    """Talk to a model; /help lists what else can be typed."""
    values = {
        "backbone": backbone,
        "system": system,
        "preset": preset,
        "temperature": temperature,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "max_new_tokens": max_new_tokens,
        "threads": threads,
        "seed": seed,
    }
    settings = load_settings(GenerateSettings, config, values)
    adapters = named_folders(adapter)
    from rich.console import Console

    from litee.predict.generation import Engine
    from litee.predict.generation_model import GenerationModel

    model = GenerationModel(settings, adapters)
    console = Console()
    first = next(iter(adapters), "")
    talk = Talk(settings, Engine(model), console, tuple(adapters), first, settings.system)
    console.print(f"{settings.backbone}{f' + {first}' if first else ''}; /help for commands")
    for line in _lines(console):
        if not talk.take(line):
            break


def _lines(console: Console) -> Iterator[str]:
    while True:
        try:
            line = console.input("[bold cyan]you[/] ").strip()
        except EOFError:
            console.print()
            return
        if line:
            yield line


@dataclass(slots=True)
class Talk:
    """A dialogue in the terminal.

    Attributes:
        settings: of the answers; every answer gets a seed of its own.
        engine: writes them.
        console: where they appear.
        adapters: names that may be switched to.
        adapter: the one in use, "" for none.
        system: system message, or "".
        turns: what was said, user and assistant in turns.
    """

    settings: GenerateSettings
    engine: Engine
    console: Console
    adapters: tuple[str, ...] = ()
    adapter: str = ""
    system: str = ""
    turns: list[Message] = field(default_factory=list)
    answered: int = 0

    def take(self, line: str) -> bool:
        """Carry out one line that was typed; False ends the talk."""
        from litee.records import Message

        if not line.startswith("/"):
            self.turns.append(Message("user", line))
            self._answer()
            return True
        command, _, rest = line.partition(" ")
        actions = {
            "/adapter": self._switch,
            "/system": self._instruct,
            "/reset": self._reset,
            "/retry": self._retry,
            "/save": self._save,
            "/help": self._show_help,
        }
        if command in ("/quit", "/exit"):
            return False
        action = actions.get(command)
        if action is None:
            self.console.print(f"unknown command {command}; /help lists them", markup=False)
            return True
        try:
            action(rest.strip())
        except LiteeError as error:
            self.console.print(str(error), style="yellow", markup=False)
        return True

    def _answer(self) -> None:
        from litee.predict.generation import Request, stream_answer
        from litee.predict.generation_sampling import Sampling
        from litee.records import Message

        head = [Message("system", self.system)] if self.system else []
        sampling = Sampling.of(self.settings, seed=self.settings.seed + self.answered)
        request = Request((*head, *self.turns), sampling, self.adapter)
        self.answered += 1
        self.console.print(f"[bold green]{self.adapter or 'model'}[/] ", end="")
        text, reason = "", "cancelled"
        try:
            with closing(stream_answer(self.engine, request)) as deltas:
                for delta in deltas:
                    text, reason = text + delta.text, delta.finish_reason
                    self.console.print(delta.text, end="", markup=False, highlight=False)
        except LiteeError as error:
            self.turns.pop()
            self.console.print(str(error), style="yellow", markup=False)
            return
        except KeyboardInterrupt:
            reason = "cancelled"
        said = {"length": f"[dim] (cut at {self.settings.max_new_tokens} tokens)[/]"}
        self.console.print(said.get(reason, "[dim] (stopped)[/]" if reason == "cancelled" else ""))
        self.turns.append(Message("assistant", text))

    def _switch(self, name: str) -> None:
        if name and name not in self.adapters:
            known = ", ".join(self.adapters) or "none; start with --adapter FOLDER"
            self.console.print(f"no adapter named {name!r}; adapters: {known}", markup=False)
            return
        self.adapter = name
        self.console.print(f"now speaking: {name or 'the plain model'}", markup=False)

    def _instruct(self, text: str) -> None:
        self.system = text
        self._reset("")

    def _reset(self, _: str) -> None:
        self.turns = []
        self.console.print("a new dialogue")

    def _retry(self, _: str) -> None:
        if not self.turns:
            self.console.print("nothing was asked yet")
            return
        self.turns.pop()
        self._answer()

    def _save(self, name: str) -> None:
        from litee.rundir import write_text

        if not self.turns or not name:
            self.console.print("nothing was said yet" if name else "write /save FILE.jsonl")
            return
        head = [("system", self.system)] if self.system else []
        said = [*head, *((m.role, m.text) for m in self.turns)]
        line = json.dumps(
            {"messages": [{"role": r, "content": t} for r, t in said]}, ensure_ascii=False
        )
        path = Path(name).expanduser()
        try:
            old = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot add to the file: {error}", place=name) from error
        write_text(path, old + line + "\n")
        self.console.print(f"saved to {path}", markup=False, soft_wrap=True)

    def _show_help(self, _: str) -> None:
        for command, meaning in _COMMANDS.items():
            self.console.print(f"  {command:<18} {meaning}", markup=False, highlight=False)
