"""The litehouse command."""

import signal
import sys

import click


@click.group()
def main() -> None:
    """The backend of an AI app in one process."""


@main.command()
@click.option("--host")
@click.option("--port", type=int)
@click.option("--data", "data_dir")
def serve(host: str | None, port: int | None, data_dir: str | None) -> None:
    """Serve."""
    import uvicorn

    from app.edge import logs
    from app.main import create_app
    from app.settings import read_settings

    settings = read_settings(host=host, port=port, data_dir=data_dir)
    logs.configure(settings.log_level)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        loop="uvloop",
        http="httptools",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
