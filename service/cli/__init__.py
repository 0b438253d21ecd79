"""The `shrinkface` command."""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

from service.cli import galleries, gallery, keys, model, people, persons, serve, transfer

app = typer.Typer(help="Face identification service.", no_args_is_help=True, pretty_exceptions_enable=False)

app.command("serve")(serve.serve)
app.command("demo")(serve.demo)
app.command("enroll")(people.enroll)
app.command("identify")(people.identify)
app.command("verify")(people.verify)
app.add_typer(persons.app, name="persons")
app.add_typer(galleries.app, name="galleries")
app.add_typer(keys.app, name="keys")
app.command("import")(transfer.import_gallery)
app.command("export")(transfer.export_gallery)
app.add_typer(gallery.app, name="gallery")
app.add_typer(model.app, name="model")

# Commands that other packages bring, such as the benchmarks of the training package: found at run time, so that the
# service imports nothing of them.
for _plugin in entry_points(group="shrinkface.commands"):
    app.add_typer(_plugin.load(), name=_plugin.name)

__all__ = ["app"]
