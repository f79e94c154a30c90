"""The house: rooms import only to their left, SQL is in its place, and no rule rests on somebody's memory."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from app.edge.openapi import Operation
from app.edge.placement import Place, Placement, anywhere, at_home, at_primary, here
from app.edge.router import Route
from app.routes import ROUTES

ROOT = Path(__file__).parent.parent
APP = ROOT / "app"
MODULES = sorted(APP.rglob("*.py"))
ROOMS = sorted(path for path in APP.iterdir() if path.is_dir() and (path / "__init__.py").exists())
MOST_LINES = 300

# Who may import whom: each line only those above it, and the rooms of one line not each other.
ORDER = (
    ("errors",),
    ("environment", "regions"),
    ("settings",),
    ("edge",),
    ("identity",),
    ("webhooks",),
    ("usage",),
    ("projects",),
    ("instances",),
    ("chats",),
    ("gateway",),
    ("timetracking", "leaderboard"),
    ("accounts",),
    ("ops",),
    ("routes",),
    ("main",),
    ("cli",),
)
RANK = {room: rank for rank, line in enumerate(ORDER) for room in line}

# Two modules write files of their own, which the core's writer never sees: the dump of another product's
# database, and an instance's file, whose one writer is its home's store.
WRITERS_OF_OTHER_FILES = (APP / "usage" / "d1.py", APP / "instances" / "store.py")

# The operator's shell knows by name what it must not run; its own tests try each.
NAMES_WHAT_IT_REFUSES = APP / "edge" / "shell.py"

SQL = re.compile(
    r"\s*(SELECT\s|INSERT (INTO|OR)\s|REPLACE INTO\s|UPDATE \w+\s+SET\s|DELETE FROM\s|WITH (RECURSIVE )?\w+.* AS \(|"
    r"CREATE (TABLE|INDEX|UNIQUE|TEMP|VIEW|TRIGGER)|DROP (TABLE|INDEX|VIEW)|ALTER TABLE|PRAGMA\s|ATTACH\s|DETACH\s|"
    r"VACUUM|BEGIN( IMMEDIATE| EXCLUSIVE)?$|COMMIT$|ROLLBACK|SAVEPOINT\s)"
)
BREAKS_THE_GROUP = re.compile(
    r"\bDEFERRED\b|\bDEFERRABLE\b|\bOR\s+ROLLBACK\b|defer_foreign_keys|RAISE\s*\(\s*ROLLBACK", re.I
)
# Each of these has been seen to end LiteFS, or to stop a replica until its data was wiped: docs/edge.md.
ENDS_LITEFS = re.compile(
    r"\bVACUUM\b(?!\s+INTO)|\bjournal_mode\s*=(?!\s*WAL\b)|\bcache_spill\s*=(?!\s*OFF\b)|\blocking_mode\b|"
    r"\bauto_vacuum\b|\bpage_size\s*=|\bwritable_schema\b",
    re.I,
)
ENDS_THE_TRANSACTION = re.compile(r"\s*(BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE|VACUUM|ATTACH|DETACH)\b")
DATABASE_FILE = re.compile(r"database_path|\bdb\.path|core\.db|\.db\b|-wal|-shm")
OPENS_A_FILE = {
    "open",
    "read_bytes",
    "read_text",
    "write_bytes",
    "write_text",
    "copy",
    "copyfile",
    "copy2",
    "hash_file",
}
SQLITE_MODULES = {"sqlite3", "_sqlite3", "pysqlite3", "apsw"}
VAGUE = {"utils", "helpers", "common", "manager", "service", "base", "misc"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    parts = path.relative_to(APP).parts
    return parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """The dotted names of what a module imports, wherever in it, `from a import b` as `a.b`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def texts(path: Path) -> Iterator[str]:
    """String constants and the fixed parts of f-strings, without docstrings."""
    module = tree(path)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name_of)


@every([path for path in MODULES if path != APP / "__init__.py"])
def test_a_module_imports_only_to_its_left(path: Path) -> None:
    room = room_of(path)
    assert room in RANK, f"{room} is not in the order of rooms"
    for imported in imports(path):
        if not imported.startswith("app."):
            continue
        other = imported.split(".")[1]
        if other in RANK and other != room:
            assert RANK[other] < RANK[room], f"{name_of(path)} imports {imported}"


def test_only_the_first_import_is_made_by_the_package_itself() -> None:
    assert [name for name in imports(APP / "__init__.py") if name.startswith("app")] == ["app.edge.sqlite"]


@every(ROOMS)
def test_a_room_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(tree(path / "__init__.py"))
    assert docstring, f"{name_of(path)}/__init__.py has no docstring"
    assert len(docstring.splitlines()) >= 2


@every([path for path in MODULES if path.stat().st_size])
def test_a_module_says_what_it_is_in_its_first_line(path: Path) -> None:
    assert ast.get_docstring(tree(path)), f"{name_of(path)} has no docstring"


@every(MODULES)
def test_a_module_is_one_noun_of_at_most_300_lines(path: Path) -> None:
    assert path.stem not in VAGUE
    assert len(path.read_text().splitlines()) <= MOST_LINES


@every(
    [
        path
        for path in MODULES
        if room_of(path) != "edge" and not path.name.endswith("queries.py") and path not in WRITERS_OF_OTHER_FILES
    ]
)
def test_sql_is_only_in_queries_and_in_the_machine_room(path: Path) -> None:
    assert [text for text in texts(path) if SQL.match(text)] == []


@every(MODULES)
def test_no_statement_breaks_the_group(path: Path) -> None:
    """What ends or postpones the failure of a transaction fails everybody in it, or commits what was refused."""
    assert [text for text in texts(path) if BREAKS_THE_GROUP.search(text)] == []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr != "executescript", f"{name_of(path)}:{node.lineno}"
        if isinstance(node, ast.With):
            for item in node.items:
                held = ast.unparse(item.context_expr)
                assert not re.fullmatch(r"(.*\.)?_?(connection|raw|conn|tx|reader)", held), (
                    f"{name_of(path)}: with {held}"
                )


@every([*MODULES, *sorted((ROOT / "migrations").rglob("*.sql"))])
def test_no_statement_ends_a_replicating_file_system(path: Path) -> None:
    if path == NAMES_WHAT_IT_REFUSES:
        return
    written = [path.read_text()] if path.suffix == ".sql" else list(texts(path))
    assert [text for text in written if ENDS_LITEFS.search(text)] == []


@pytest.mark.parametrize(
    "statement",
    [
        "VACUUM",
        "vacuum main",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA journal_mode=off",
        "PRAGMA cache_spill = ON",
        "PRAGMA locking_mode = EXCLUSIVE",
    ],
)
def test_what_ends_a_replicating_file_system_is_recognised(statement: str) -> None:
    assert ENDS_LITEFS.search(statement)


def test_the_journal_mode_is_set_in_one_place_only() -> None:
    places = {name_of(path) for path in MODULES for text in texts(path) if "journal_mode" in text}
    assert places - {name_of(NAMES_WHAT_IT_REFUSES)} == {"app/edge/sqlite.py"}


def test_whatever_writes_the_core_holds_its_pages_until_the_commit() -> None:
    """A page cache that has spilled before a savepoint is rolled back ends LiteFS."""
    spills = {name_of(path) for path in MODULES for text in texts(path) if "cache_spill" in text}
    others = {name_of(path) for path in (*WRITERS_OF_OTHER_FILES, NAMES_WHAT_IT_REFUSES)}
    assert spills - others == {"app/edge/migrate.py", "app/edge/writer.py"}
    makers = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "sqlite.connect"
        and not any(given.arg == "read_only" for given in node.keywords)
    }
    elsewhere = {
        # It opens for writing what it only reads, and never on a replica: what SQLite checks depends on it.
        "app/edge/integrity.py",
        # The ledger and what is restored are never on the mount.
        "app/edge/archive.py",
        "app/edge/restoration.py",
        "app/instances/restoration.py",
    }
    assert makers - others - elsewhere == spills - others


@pytest.mark.parametrize("path", sorted((ROOT / "migrations").rglob("*.sql")), ids=name_of)
def test_no_migration_breaks_the_group(path: Path) -> None:
    statements = re.sub(r"--.*", "", path.read_text())
    assert not BREAKS_THE_GROUP.search(statements)
    for statement in statements.split(";"):
        assert not re.match(r"\s*(BEGIN|COMMIT|ROLLBACK|VACUUM|PRAGMA)\b", statement), statement


@every([path for path in MODULES if room_of(path) != "edge" and path not in WRITERS_OF_OTHER_FILES])
def test_only_the_machine_room_begins_and_ends_transactions(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"execute", "executemany", "fetch"}:
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    assert not ENDS_THE_TRANSACTION.match(argument.value), f"{name_of(path)}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"commit", "rollback", "create_function", "set_authorizer"}, name_of(path)


@every([path for path in MODULES if path != APP / "edge" / "sqlite.py"])
def test_no_module_but_one_loads_sqlite(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path)} & SQLITE_MODULES


@every([path for path in MODULES if path != APP / "edge" / "sqlite.py"])
def test_a_database_file_is_opened_through_one_module_only(path: Path) -> None:
    """A plain open and close of a live database in its own process drops SQLite's locks on it."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"aiosqlite.connect", "pysqlite3.connect", "sqlite3.connect"}, name_of(path)
        if called.split(".")[-1] in OPENS_A_FILE:
            assert not DATABASE_FILE.search(ast.unparse(node)), f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}"


def test_the_scanners_are_connections_of_the_one_module() -> None:
    made = [
        ast.unparse(node)
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("aiosqlite.")
    ]
    assert len(made) == 1
    assert "sqlite.connect(self.path, read_only=True, mapped=local)" in made[0]


def route_name(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", ROUTES, ids=route_name)
def test_a_route_has_a_placement_and_says_what_it_takes_and_gives(route: Route) -> None:
    assert isinstance(route.placement, Placement)
    assert isinstance(getattr(route.endpoint, "operation", None), Operation)
    assert route.endpoint.__doc__


def test_every_route_stands_where_it_is_meant_to() -> None:
    """A read runs anywhere and a write at the primary. What is neither is listed here, and thought about."""
    exceptions = {
        route_name(route): route.placement
        for route in ROUTES
        if route.placement != (anywhere if route.verb == "GET" else at_primary)
    }
    at_its_home = at_home(by="path")
    assert exceptions == {
        "WEBSOCKET /sync/{id}": at_its_home,
        "GET /api/instances/{id}/keys": at_its_home,
        "GET /api/instances/{id}/keys/{key:path}": at_its_home,
        "PUT /api/instances/{id}/keys/{key:path}": at_its_home,
        "DELETE /api/instances/{id}/keys/{key:path}": at_its_home,
        "GET /api/instances/{id}/history": at_its_home,
        "POST /api/instances/{id}/revert": at_its_home,
        "POST /api/instances/{id}/undo": at_its_home,
        "GET /api/instances/{id}/export": at_its_home,
        "POST /api/instances/{id}/import": at_its_home,
        "GET /admin/do/{id}": at_its_home,
        "GET /admin/instances/{id}": at_its_home,
        "GET /admin/instances/{id}/history": at_its_home,
        "GET /admin/instances/{id}/seqs": at_its_home,
        # The ledger's older rows are in a file that only the primary has.
        "GET /api/usage/export": at_primary,
        "GET /livez": here,
        "GET /readyz": here,
        "GET /health": here,
        "GET /api/health": here,
        "GET /api/health/ping": here,
        "GET /metrics": here,
    }


@pytest.mark.parametrize("route", [route for route in ROUTES if route.placement.place is Place.AT_HOME], ids=route_name)
def test_a_route_at_home_says_how_its_home_is_found(route: Route) -> None:
    if route.placement.by != "body":
        assert route.placement.name in re.findall(r"{(\w+)", route.path)


def test_no_two_routes_answer_the_same_request() -> None:
    """Two patterns of one shape with parameters of two names would hide each other's methods."""
    shapes: dict[str, set[str]] = {}
    for route in ROUTES:
        shapes.setdefault(re.sub(r"{[^}]*}", "{}", route.path), set()).add(route.path)
    assert [paths for paths in shapes.values() if len(paths) > 1] == []
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
