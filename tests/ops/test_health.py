"""GET /health, /api/health, /livez, /readyz."""

from tests.conftest import Server


def test_every_health_path_answers(server: Server) -> None:
    with server.client() as client:
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/api/health/ping").text == "pong"
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        long = client.get("/api/health").json()
    assert long["services"] == {"database": "healthy", "kv_storage": "healthy"}
    assert long["primary"] is True
    assert long["lagMs"] == 0


def test_a_stop_is_clean(server: Server) -> None:
    assert server.stop() == 0
