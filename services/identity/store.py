"""Where identity keeps accounts, credentials and signing keys. Each method is one transaction.

No secret is stored but the signing seeds: passwords are argon2id hashes, API keys and refresh tokens SHA-256 digests.
Seeds are protected as the database is (a file of mode 0600, or a schema that only this service's role reads).
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    RowMapping,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from services.identity.accounts import Membership, Project, Role, User
from services.identity.delegations import Delegation
from services.identity.keys import ApiKey
from services.identity.sessions import Outcome, RefreshToken, Session, judge
from services.identity.signing_keys import RotationPolicy, SigningKey, retires_at_us, successor
from services.runtime.database import Database
from services.runtime.errors import AlreadyExists, NotFound, ResourceExhausted

metadata: Final = MetaData()

users: Final = Table(
    "users",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)
projects: Final = Table(
    "projects",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)
memberships: Final = Table(
    "memberships",
    metadata,
    Column("user_id", Text, ForeignKey("users.user_id"), primary_key=True),
    Column("project_id", Text, ForeignKey("projects.project_id"), primary_key=True),
    Column("role", Text, nullable=False),
)
sessions: Final = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.user_id"), nullable=False),
    Column("project_id", Text, ForeignKey("projects.project_id"), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("revoked_at_us", BigInteger, nullable=False),
    Index("sessions_by_user", "user_id", "session_id"),
    Index("sessions_by_expiry", "expires_at_us"),
)
refresh_tokens: Final = Table(
    "refresh_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("session_id", Text, ForeignKey("sessions.session_id", ondelete="CASCADE"), nullable=False),
    Column("issued_at_us", BigInteger, nullable=False),
    Column("used_at_us", BigInteger, nullable=False),
    Index("refresh_tokens_by_session", "session_id"),
)
api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.project_id"), nullable=False),
    Column("user_id", Text, ForeignKey("users.user_id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("permissions", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("revoked_at_us", BigInteger, nullable=False),
    Index("api_keys_by_project", "project_id", "key_id"),
)
delegations: Final = Table(
    "delegations",
    metadata,
    Column("delegation_id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.project_id"), nullable=False),
    Column("user_id", Text, ForeignKey("users.user_id"), nullable=False),
    Column("key_id", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("revoked_at_us", BigInteger, nullable=False),
    Index("delegations_by_purpose", "project_id", "purpose"),
    Index("delegations_by_expiry", "expires_at_us"),
)
signing_keys: Final = Table(
    "signing_keys",
    metadata,
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("seed", LargeBinary, nullable=False),
    Column("signs_from_us", BigInteger, nullable=False),
    Column("signs_until_us", BigInteger, nullable=False),
)


class IdentityStore:
    """Identity's tables on SQLite or PostgreSQL. Times that a method takes or gives are microseconds UTC."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Accounts

    async def create_account(self, user: User, project: Project) -> None:
        """Adds a person with a first project that they own. Raises AlreadyExists where the address is taken."""
        await self._database.write(self._create_account, user, project)

    def _create_account(self, connection: Connection, user: User, project: Project) -> None:
        adding = self._database.upsert(users).values(_row(user)).on_conflict_do_nothing(index_elements=["email"])
        if connection.execute(adding.returning(users.c.user_id)).first() is None:
            raise AlreadyExists("ALREADY_EXISTS", "An account with this e-mail address exists; log in instead.")
        connection.execute(insert(projects), _row(project))
        owner = {"user_id": user.user_id, "project_id": project.project_id, "role": Role.OWNER.value}
        connection.execute(insert(memberships), owner)

    async def find_user(self, email: str) -> User | None:
        """The account with a normalized e-mail address."""
        return await self._database.read(_find_user, email)

    async def get_user(self, user_id: str) -> User:
        """An account by id. Raises NotFound."""
        return await self._database.read(_get_user, user_id)

    async def get_project(self, project_id: str) -> Project:
        """A project by id. Raises NotFound."""
        return await self._database.read(_get_project, project_id)

    async def replace_password_hash(self, user_id: str, old: str, new: str) -> None:
        """Stores a hash made with other parameters, unless the password was changed meanwhile."""
        await self._database.write(_replace_password_hash, user_id, old, new)

    async def find_membership(self, user_id: str, project_id: str) -> Membership | None:
        """Somebody's place in a project; an empty ``project_id`` means the oldest project that they are in."""
        return await self._database.read(_find_membership, user_id, project_id)

    # Sessions

    async def begin_session(self, session: Session, token_digest: bytes, max_sessions: int) -> None:
        """Adds a session with its first refresh token; beyond ``max_sessions`` a person's oldest ones end."""
        await self._database.write(_begin_session, session, token_digest, max_sessions)

    async def use_refresh_token(self, old: bytes, new: bytes) -> tuple[Outcome, Session | None]:
        """Exchanges the token with digest ``old`` for ``new``; one that was used before revokes its session."""
        return await self._database.write(self._use_refresh_token, old, new)

    def _use_refresh_token(self, connection: Connection, old: bytes, new: bytes) -> tuple[Outcome, Session | None]:
        now_us = self._database.now_us(connection)
        session, token = _lock_session_of(connection, old)
        outcome = judge(token, session, now_us)
        if session is None or token is None:
            return outcome, None
        if outcome is Outcome.RENEW:
            connection.execute(update(refresh_tokens).where(refresh_tokens.c.digest == old).values(used_at_us=now_us))
            connection.execute(insert(refresh_tokens), _row(RefreshToken(new, session.session_id, now_us, 0)))
        elif outcome is Outcome.REVOKE:
            _revoke_session(connection, session.session_id, now_us)
        return outcome, session

    async def end_session(self, token_digest: bytes) -> None:
        """Revokes the session of a refresh token, if there is one."""
        await self._database.write(self._end_session, token_digest)

    def _end_session(self, connection: Connection, token_digest: bytes) -> None:
        session, _ = _lock_session_of(connection, token_digest)
        if session is not None:
            _revoke_session(connection, session.session_id, self._database.now_us(connection))

    # API keys

    async def add_api_key(self, key: ApiKey, max_keys: int) -> None:
        """Adds a key. Raises ResourceExhausted (LIMIT_REACHED) at ``max_keys`` unrevoked ones in the project."""
        await self._database.write(_add_api_key, key, max_keys)

    async def find_api_key(self, key_id: str) -> ApiKey | None:
        """A key by id, in whatever project and state."""
        return await self._database.read(_find_api_key, key_id)

    async def list_api_keys(self, project_id: str, after_key_id: str, limit: int) -> list[ApiKey]:
        """A project's keys, oldest first, that follow ``after_key_id`` (empty: from the first)."""
        return await self._database.read(_list_api_keys, project_id, after_key_id, limit)

    async def revoke_api_key(self, project_id: str, key_id: str) -> None:
        """Revokes a key of the project, once. Raises NotFound."""
        await self._database.write(self._revoke_api_key, project_id, key_id)

    def _revoke_api_key(self, connection: Connection, project_id: str, key_id: str) -> None:
        found = connection.execute(
            update(api_keys)
            .where(api_keys.c.project_id == project_id, api_keys.c.key_id == key_id)
            .values(revoked_at_us=_first_time(api_keys.c.revoked_at_us, self._database.now_us(connection)))
        )
        if found.rowcount == 0:
            raise NotFound("api_key", key_id)

    # Delegations

    async def create_delegation(self, wanted: Delegation) -> Delegation:
        """Adds a delegation, or gives the live one with the same giver and purpose."""
        return await self._database.write(self._create_delegation, wanted)

    def _create_delegation(self, connection: Connection, wanted: Delegation) -> Delegation:
        # The project's row is the lock under which a repeat finds the first.
        _lock_project(connection, wanted.project_id)
        table = delegations.c
        same = select(delegations).where(
            table.project_id == wanted.project_id,
            table.purpose == wanted.purpose,
            table.user_id == wanted.user_id,
            table.key_id == wanted.key_id,
        )
        now_us = self._database.now_us(connection)
        for row in connection.execute(same).mappings():
            existing = Delegation(**row)
            if existing.is_live(now_us):
                return existing
        connection.execute(insert(delegations), _row(wanted))
        return wanted

    async def get_delegation(self, project_id: str, delegation_id: str) -> Delegation:
        """A delegation of the project. Raises NotFound."""
        return await self._database.read(_get_delegation, project_id, delegation_id)

    async def revoke_delegation(self, project_id: str, delegation_id: str) -> None:
        """Ends a delegation of the project, once. Raises NotFound."""
        await self._database.write(self._revoke_delegation, project_id, delegation_id)

    def _revoke_delegation(self, connection: Connection, project_id: str, delegation_id: str) -> None:
        table = delegations.c
        found = connection.execute(
            update(delegations)
            .where(table.project_id == project_id, table.delegation_id == delegation_id)
            .values(revoked_at_us=_first_time(table.revoked_at_us, self._database.now_us(connection)))
        )
        if found.rowcount == 0:
            raise NotFound("delegation", delegation_id)

    # Signing keys and housekeeping

    async def rotate_signing_keys(self, policy: RotationPolicy, seed: bytes) -> list[SigningKey]:
        """The keys to publish, after adding one made from ``seed`` where it is due and dropping the retired.

        Of replicas that do this at the same moment one adds its key, and all get the same keys.
        """
        return await self._database.write(self._rotate_signing_keys, policy, seed)

    def _rotate_signing_keys(self, connection: Connection, policy: RotationPolicy, seed: bytes) -> list[SigningKey]:
        now_us = self._database.now_us(connection)
        keys = _signing_keys(connection)
        retired = [generation for generation, key in keys.items() if retires_at_us(key, policy) <= now_us]
        new = successor(list(keys.values()), policy, now_us, seed)
        if new is not None:
            row = {"generation": max(keys, default=0) + 1, **_row(new)}
            adding = self._database.upsert(signing_keys).values(row)
            connection.execute(adding.on_conflict_do_nothing(index_elements=["generation"]))
        if retired:
            connection.execute(delete(signing_keys).where(signing_keys.c.generation.in_(retired)))
        if new is not None or retired:
            keys = _signing_keys(connection)
        return list(keys.values())

    async def forget_ended(self, older_than_s: int, limit: int) -> int:
        """Deletes up to ``limit`` each of sessions and delegations that expired that long ago; gives their number."""
        return await self._database.write(self._forget_ended, older_than_s, limit)

    def _forget_ended(self, connection: Connection, older_than_s: int, limit: int) -> int:
        before_us = self._database.now_us(connection) - older_than_s * 1_000_000
        forgotten = 0
        for table in (sessions, delegations):
            (key,) = table.primary_key.columns
            ended = select(key).where(table.c.expires_at_us < before_us).limit(limit)
            forgotten += connection.execute(delete(table).where(key.in_(ended))).rowcount
        return forgotten


def _row(value: Any) -> dict[str, Any]:
    """A frozen dataclass as a row: its fields are the columns."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _first_time(column: Column[int], now_us: int) -> Any:
    """``now_us`` where the column is 0, else what it holds."""
    return func.coalesce(func.nullif(column, 0), now_us)


def _find_user(connection: Connection, email: str) -> User | None:
    row = connection.execute(select(users).where(users.c.email == email)).mappings().first()
    return User(**row) if row else None


def _get_user(connection: Connection, user_id: str) -> User:
    row = connection.execute(select(users).where(users.c.user_id == user_id)).mappings().first()
    if row is None:
        raise NotFound("user", user_id)
    return User(**row)


def _get_project(connection: Connection, project_id: str) -> Project:
    row = connection.execute(select(projects).where(projects.c.project_id == project_id)).mappings().first()
    if row is None:
        raise NotFound("project", project_id)
    return Project(**row)


def _replace_password_hash(connection: Connection, user_id: str, old: str, new: str) -> None:
    same = (users.c.user_id == user_id, users.c.password_hash == old)
    connection.execute(update(users).where(*same).values(password_hash=new))


def _lock_project(connection: Connection, project_id: str) -> None:
    locked = select(projects.c.project_id).where(projects.c.project_id == project_id).with_for_update()
    if connection.execute(locked).first() is None:
        raise NotFound("project", project_id)


def _find_membership(connection: Connection, user_id: str, project_id: str) -> Membership | None:
    wanted = select(memberships).where(memberships.c.user_id == user_id).order_by(memberships.c.project_id)
    if project_id:
        wanted = wanted.where(memberships.c.project_id == project_id)
    row = connection.execute(wanted.limit(1)).first()
    return Membership(row.project_id, row.user_id, Role(row.role)) if row else None


def _begin_session(connection: Connection, session: Session, token_digest: bytes, max_sessions: int) -> None:
    newest = (
        select(sessions.c.session_id)
        .where(sessions.c.user_id == session.user_id)
        .order_by(sessions.c.session_id.desc())
        .limit(max_sessions - 1)
    )
    connection.execute(
        delete(sessions).where(sessions.c.user_id == session.user_id, sessions.c.session_id.not_in(newest))
    )
    connection.execute(insert(sessions), _row(session))
    token = RefreshToken(token_digest, session.session_id, session.created_at_us, 0)
    connection.execute(insert(refresh_tokens), _row(token))


def _lock_session_of(connection: Connection, token_digest: bytes) -> tuple[Session | None, RefreshToken | None]:
    """The session of a token, its row locked first, so that of two uses of one token exactly one is the first."""
    wanted = select(refresh_tokens.c.session_id).where(refresh_tokens.c.digest == token_digest).scalar_subquery()
    held = (
        connection.execute(select(sessions).where(sessions.c.session_id == wanted).with_for_update()).mappings().first()
    )
    if held is None:
        return None, None
    row = connection.execute(select(refresh_tokens).where(refresh_tokens.c.digest == token_digest)).mappings().one()
    return Session(**held), RefreshToken(**row)


def _revoke_session(connection: Connection, session_id: str, now_us: int) -> None:
    connection.execute(
        update(sessions)
        .where(sessions.c.session_id == session_id)
        .values(revoked_at_us=_first_time(sessions.c.revoked_at_us, now_us))
    )


def _add_api_key(connection: Connection, key: ApiKey, max_keys: int) -> None:
    # The project's row is the lock under which its keys are counted.
    _lock_project(connection, key.project_id)
    count = connection.execute(
        select(func.count())
        .select_from(api_keys)
        .where(api_keys.c.project_id == key.project_id, api_keys.c.revoked_at_us == 0)
    ).scalar_one()
    if count >= max_keys:
        raise ResourceExhausted("LIMIT_REACHED", f"The project has {count} API keys, its limit; revoke one first.")
    connection.execute(insert(api_keys), {**_row(key), "permissions": " ".join(sorted(key.permissions))})


def _find_api_key(connection: Connection, key_id: str) -> ApiKey | None:
    row = connection.execute(select(api_keys).where(api_keys.c.key_id == key_id)).mappings().first()
    return _api_key(row) if row else None


def _list_api_keys(connection: Connection, project_id: str, after_key_id: str, limit: int) -> list[ApiKey]:
    wanted = select(api_keys).where(api_keys.c.project_id == project_id, api_keys.c.key_id > after_key_id)
    rows = connection.execute(wanted.order_by(api_keys.c.key_id).limit(limit)).mappings()
    return [_api_key(row) for row in rows]


def _api_key(row: RowMapping) -> ApiKey:
    return ApiKey(**{**row, "permissions": frozenset(row["permissions"].split())})


def _signing_keys(connection: Connection) -> dict[int, SigningKey]:
    rows = connection.execute(select(signing_keys).order_by(signing_keys.c.generation))
    return {row.generation: SigningKey(row.seed, row.signs_from_us, row.signs_until_us) for row in rows}


def _get_delegation(connection: Connection, project_id: str, delegation_id: str) -> Delegation:
    table = delegations.c
    wanted = select(delegations).where(table.project_id == project_id, table.delegation_id == delegation_id)
    row = connection.execute(wanted).mappings().first()
    if row is None:
        raise NotFound("delegation", delegation_id)
    return Delegation(**row)
