"""Who is let in, and to what: keys and tenants on a cluster."""

import pytest
from parley_client import AccessDenied, Client, NotFound, ParleyError

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("key", "reason"), [(None, "CREDENTIALS_MISSING"), ("wrong", "CREDENTIALS_INVALID")]
)
async def test_without_a_good_key_nothing_is_answered(installation, key, reason):
    async with Client(installation.address, api_key=key) as client:
        for call in (client.voices(), client.sessions(), client.ask(text="Hello?").collect()):
            with pytest.raises(AccessDenied) as caught:
                await call
            assert caught.value.reason == reason
        with pytest.raises(AccessDenied):
            async with client.converse():
                pass


async def test_a_tenant_neither_sees_nor_touches_the_sessions_of_another(installation):
    async with installation.client("alpha") as alpha, installation.client("beta") as beta:
        session = (await alpha.create_session()).name
        assert session.startswith("tenants/alpha/")
        assert session not in [each.name for each in await beta.sessions()]
        for call in (beta.session(session), beta.turns(session), beta.delete_session(session)):
            with pytest.raises(ParleyError) as caught:
                await call
            assert isinstance(caught.value, NotFound | AccessDenied), caught.value
        with pytest.raises(ParleyError):
            async with beta.converse(session=session):
                pass
        assert (await alpha.session(session)).name == session
