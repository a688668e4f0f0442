"""The ledger on SQLAlchemy: the only place of this service that knows a database."""

from services.orchestrator.store.ledger import SqlLedger
from services.orchestrator.store.results import Bodies, ResultOrder, ResultQuery, StoredResult

__all__ = ["Bodies", "ResultOrder", "ResultQuery", "SqlLedger", "StoredResult"]
