"""People: sign-up, log-in, and the session that follows."""

from dataclasses import dataclass

from services.identity import sessions
from services.identity.accounts import Membership, Project, User, checked_name, normalized_email
from services.identity.keyring import Keyring
from services.identity.passwords import PasswordHasher
from services.identity.sessions import Outcome, Session
from services.identity.store import IdentityStore
from services.identity.throttle import AttemptLimiter, peer_key
from services.identity.tokens import AccessToken, Subject
from services.runtime.clock import Clock
from services.runtime.errors import PermissionDenied, Unauthenticated, WrongState
from services.runtime.ids import new_id

DEFAULT_PROJECT_NAME = "default"


@dataclass(frozen=True, slots=True)
class SessionTokens:
    """What a session gives out. ``refresh_token`` is empty, and its end 0, for an exchanged API key."""

    access: AccessToken
    refresh_token: str = ""
    refresh_expires_at_us: int = 0


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A session that has begun."""

    user: User
    project: Project
    tokens: SessionTokens


@dataclass(frozen=True, slots=True)
class LoginPolicy:
    """Limits of sessions: their life in seconds, how many a person may have, and whether anybody may sign up."""

    session_life_s: int
    max_sessions_per_user: int
    sign_up_enabled: bool


class Logins:
    """Sign-up, log-in, refresh and log-out."""

    def __init__(
        self,
        store: IdentityStore,
        hasher: PasswordHasher,
        keyring: Keyring,
        policy: LoginPolicy,
        clock: Clock,
        *,
        by_email: AttemptLimiter,
        by_peer: AttemptLimiter,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._keyring = keyring
        self._policy = policy
        self._clock = clock
        self._by_email = by_email
        self._by_peer = by_peer

    async def sign_up(self, *, email: str, password: str, name: str, project_name: str, peer: str) -> LoggedIn:
        """Makes an account with a first project and logs it in.

        Raises InvalidField, AlreadyExists (the address is taken), WrongState (sign-up is closed), ResourceExhausted.
        A taken address cannot be hidden here without sending mail; the peer's bucket bounds how many can be tried.
        """
        if not self._policy.sign_up_enabled:
            raise WrongState("WRONG_STATE", "Sign-up is closed on this server; ask its operator for an account.")
        address = normalized_email(email)
        shown_name = checked_name("name", name)
        shown_project = checked_name("project_name", project_name or DEFAULT_PROJECT_NAME)
        self._by_peer.take(peer_key(peer))
        password_hash = await self._hasher.hash(password)
        now_us = self._clock.now_us()
        user = User(new_id("usr"), address, shown_name, password_hash, now_us)
        project = Project(new_id("prj"), shown_project, now_us)
        await self._store.create_account(user, project)
        membership = await self._membership(user.user_id, project.project_id)
        return LoggedIn(user, project, await self._begin(membership))

    async def log_in(self, *, email: str, password: str, project_id: str, peer: str) -> LoggedIn:
        """Begins a session in ``project_id``, or in the person's oldest project where it is empty.

        Raises Unauthenticated (LOGIN_FAILED, the same for unknown addresses and wrong passwords), ResourceExhausted
        (LOGIN_THROTTLED), PermissionDenied where the person is not a member.
        """
        address, peer_address = email.strip().casefold(), peer_key(peer)
        self._by_peer.take(peer_address)
        self._by_email.take(address)
        user = await self._store.find_user(address)
        verification = await self._hasher.verify(password, user.password_hash if user else "")
        if user is None or not verification.matches:
            raise Unauthenticated("LOGIN_FAILED", "E-mail address or password is wrong.")
        self._by_peer.give_back(peer_address)
        self._by_email.give_back(address)
        if verification.needs_rehash:
            await self._store.replace_password_hash(user.user_id, user.password_hash, await self._hasher.hash(password))
        membership = await self._membership(user.user_id, project_id)
        project = await self._store.get_project(membership.project_id)
        return LoggedIn(user, project, await self._begin(membership))

    async def refresh(self, refresh_token: str) -> SessionTokens:
        """Gives new tokens for a refresh token, which is used up. Raises Unauthenticated; a reuse ends the session."""
        renewed = sessions.new_refresh_token()
        outcome, session = await self._store.use_refresh_token(sessions.digest(refresh_token), sessions.digest(renewed))
        if session is None or outcome is not Outcome.RENEW:
            raise sessions.refused(outcome)
        membership = await self._membership(session.user_id, session.project_id)
        return SessionTokens(self._access(membership), renewed, session.expires_at_us)

    async def log_out(self, refresh_token: str) -> None:
        """Ends the session of a refresh token; an unknown one is no error."""
        await self._store.end_session(sessions.digest(refresh_token))

    async def _membership(self, user_id: str, project_id: str) -> Membership:
        membership = await self._store.find_membership(user_id, project_id)
        if membership is None:
            wanted = f"project {project_id!r}" if project_id else "any project"
            raise PermissionDenied("PERMISSION_DENIED", f"You are not a member of {wanted}; ask its owner to add you.")
        return membership

    async def _begin(self, membership: Membership) -> SessionTokens:
        now_us = self._clock.now_us()
        session = Session(
            session_id=new_id("ses"),
            user_id=membership.user_id,
            project_id=membership.project_id,
            created_at_us=now_us,
            expires_at_us=now_us + self._policy.session_life_s * 1_000_000,
            revoked_at_us=0,
        )
        refresh_token = sessions.new_refresh_token()
        await self._store.begin_session(session, sessions.digest(refresh_token), self._policy.max_sessions_per_user)
        return SessionTokens(self._access(membership), refresh_token, session.expires_at_us)

    def _access(self, membership: Membership) -> AccessToken:
        return self._keyring.issue(Subject(membership.user_id, membership.project_id, membership.role.permissions))
