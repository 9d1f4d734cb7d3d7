"""`litee serve`: an OpenAI-compatible server with a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litee.cli.chat import named_folders
from litee.config import load_settings
from litee.serve.api_settings import ServeSettings

_DEFAULTS = ServeSettings()


def setting_help(name: str) -> str:
    """Description and default of a setting, from the one place that has them."""
    shown = getattr(_DEFAULTS, name)
    described = ServeSettings.model_fields[name].description
    return f"{described} (default: {shown if shown != '' else 'none'})"


def serve(
    *,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "--model", help=setting_help("backbone"))
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="PEFT adapter, a model of its own: FOLDER or NAME=FOLDER; repeatable."),
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Judge for /v1/judge and /v1/best-of.")] = None,
    name: Annotated[str, typer.Option(help="Name of the model for clients.")] = "",
    engine: Annotated[str | None, typer.Option(help=setting_help("engine"))] = None,
    endpoint: Annotated[str | None, typer.Option(help=setting_help("endpoint"))] = None,
    host: Annotated[str | None, typer.Option(help=setting_help("host"))] = None,
    port: Annotated[int | None, typer.Option(help=setting_help("port"))] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="File of API keys, one per line; also taken from LITEE_API_KEYS."),
    ] = None,
    max_batch: Annotated[int | None, typer.Option(help=setting_help("max_batch"))] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help=setting_help("max_new_tokens"))] = None,
    threads: Annotated[int | None, typer.Option(help=setting_help("threads"))] = None,
    device: Annotated[str | None, typer.Option(help=setting_help("device"))] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
) -> None:
    """Serve chat completions as OpenAI does, adapters as models, a judge and best-of-n.

    Further settings (every one in docs/settings.md) go into the --config file.
    """
    values = {
        "backbone": backbone,
        "engine": engine,
        "endpoint": endpoint,
        "host": host,
        "port": port,
        "max_batch": max_batch,
        "max_new_tokens": max_new_tokens,
        "threads": threads,
        "device": device,
    }
    settings = load_settings(ServeSettings, config, values)
    from litee.serve.api_server import serve_api
    from litee.serve.limits import read_keys

    def ready(address: str) -> None:
        typer.echo(f"serving at {address}/v1 (engine: {settings.engine}); Ctrl-C stops")

    serve_api(
        settings,
        read_keys(keys),
        adapters=named_folders(adapter),
        judge=judge,
        name=name,
        ready=ready,
    )
