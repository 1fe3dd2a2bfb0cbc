"""``interlock models``: bring, list and check the models of the catalogue."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from runtime.cli.exits import exit_codes
from runtime.errors import CommandError
from runtime.settings import Settings
from runtime.weights import models
from runtime.weights.catalogue import look_up

models_app = typer.Typer(no_args_is_help=True, help="The models that a trial needs: fetch, list, verify.")

Names = Annotated[list[str] | None, typer.Argument(help="Names from the catalogue; all of it by default.")]
ModelsDir = Annotated[
    Path | None,
    typer.Option(help="Where models are kept.", show_default="INTERLOCK_MODELS_DIR or a cache folder"),
]


@models_app.command()
def fetch(names: Names = None, models_dir: ModelsDir = None) -> None:
    """Bring models, each once; print for each its name, its folder and its digest."""
    folder = _folder(models_dir)
    console = Console(stderr=True)
    with exit_codes():
        for name in _chosen(names):
            with _Shown(console) as progress:
                model = models.fetch(name, folder, progress)
            typer.echo(f"{model.name} {model.path} {model.digest}")


@models_app.command("list")
def list_models(models_dir: ModelsDir = None) -> None:
    """Show the catalogue, and which of it is here."""
    folder = _folder(models_dir)
    with exit_codes():
        for model in models.CATALOGUE.values():
            found = models.find(model.name, folder)
            here = f"{found.path} {found.digest}" if found else "not fetched"
            typer.echo(f"{model.name} {here}")
            typer.echo(f"    {model.description}; {model.licence}, from {model.wheel.requirement}")


@models_app.command()
def verify(names: Names = None, models_dir: ModelsDir = None) -> None:
    """Hash the files of fetched models again (all that are here by default)."""
    folder = _folder(models_dir)
    with exit_codes():
        chosen = [(name, models.find(name, folder)) for name in _chosen(names)]
        missing = [name for name, model in chosen if model is None]
        if missing and (names or len(missing) == len(chosen)):
            raise CommandError(f"not in {folder}: {', '.join(missing)}; run: interlock models fetch")
        for name, model in chosen:
            if model is not None:
                models.verify(model)
                typer.echo(f"{name} {model.path} {model.digest}")


def _folder(models_dir: Path | None) -> Path:
    return Settings().models_dir if models_dir is None else Settings(models_dir=models_dir).models_dir


def _chosen(names: list[str] | None) -> list[str]:
    """Return ``names``, or the whole catalogue; an unknown name is an error before anything is done."""
    return [look_up(name).name for name in names or models.CATALOGUE]


class _Bytes(DownloadColumn):
    """How many bytes of how many; empty for a step that is not counted in bytes."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text()


class _Shown:
    """The store's progress as a bar on a terminal, and as a line per step anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._described: str | None = None
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Bytes(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, description: str, done: int, total: int | None) -> None:
        if description != self._described:
            self._described = description
            self._bar.remove_task(self._task)  # rich cannot take a task's total back to unknown
            self._task = self._bar.add_task(description, total=total)
            if not self._console.is_terminal:
                self._console.print(description, markup=False)
        self._bar.update(self._task, completed=done)
