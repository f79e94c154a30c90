"""The environment: names that are read from it, or from the files that it names, and what was wrong with them."""

from collections.abc import Mapping
from pathlib import Path


class Environment:
    """Reads names from the environment or from the files that it names, and keeps what was wrong."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def text(self, name: str) -> str | None:
        value = self._environ.get(name, "").strip()
        path = self._environ.get(f"{name}_FILE")
        if value or not path:
            return value or None
        try:
            return Path(path).read_text().strip() or None
        except OSError as error:
            self.problems.append(f"{name}_FILE: {error.strerror}: {path}")
        except UnicodeDecodeError:
            self.problems.append(f"{name}_FILE: not UTF-8: {path}")
        return None

    def parts(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self.text(name) or "").split(",") if part.strip())

    def number(self, name: str, default: int) -> int:
        text = self.text(name)
        if text is not None and not (text.isascii() and text.isdigit()):
            self.problems.append(f"{name}: expected a whole number, got {text!r}")
            return default
        return default if text is None else int(text)

    def flag(self, name: str) -> bool:
        return (self.text(name) or "").lower() in ("1", "true", "on", "yes")
