"""Questions about spend and their answers, as messages and as values of the domain."""

from typing import Final

from llmlab.api.common.v1 import usage_pb2
from llmlab.api.cost.v1 import spend_pb2 as pb
from services.cost.exports import CsvWriter, FocusWriter, JsonLinesWriter, SpendWriter, focus_groups
from services.cost.periods import check_zone
from services.cost.rpc.codec import microseconds_of, sums_message, timestamp_of
from services.cost.spend import (
    Dimension,
    Order,
    SpendFilter,
    SpendQuery,
    SpendRow,
    SpendSummary,
    Sums,
    TagShare,
)
from services.cost.windows import AskedWindow, Window
from services.runtime.errors import InvalidField
from services.runtime.pages import decode_page_token, encode_page_token, filter_fingerprint

_PAGE_SIZE_DEFAULT: Final = 100
_MICROSECOND_NS: Final = 1_000
_DIMENSIONS: Final = {
    pb.SPEND_DIMENSION_DAY: Dimension.DAY,
    pb.SPEND_DIMENSION_WEEK: Dimension.WEEK,
    pb.SPEND_DIMENSION_MONTH: Dimension.MONTH,
    pb.SPEND_DIMENSION_PROJECT: Dimension.PROJECT,
    pb.SPEND_DIMENSION_PROVIDER: Dimension.PROVIDER,
    pb.SPEND_DIMENSION_MODEL: Dimension.MODEL,
    pb.SPEND_DIMENSION_USER: Dimension.USER,
    pb.SPEND_DIMENSION_KEY: Dimension.KEY,
    pb.SPEND_DIMENSION_RUN: Dimension.RUN,
    pb.SPEND_DIMENSION_TAG: Dimension.TAG,
}


def filter_of(message: pb.SpendFilter, field: str) -> SpendFilter:
    """Which usage counts; InvalidField names `field` for a tag that is not key=value."""
    if message.tag and "=" not in message.tag:
        raise InvalidField(f"{field}.tag", f"{message.tag!r} is no tag; write key=value.")
    return SpendFilter(message.provider, message.model, message.user_id, message.key_id, message.run_id, message.tag)


def query_of(request: pb.SummarizeSpendRequest, project_id: str) -> SpendQuery:
    """The question for one page; InvalidField for what cannot be asked, and for the token of another question."""
    asked = _asked(request)
    position: tuple[str | int, ...] = ()
    token = decode_page_token(_fingerprint(request, project_id), request.page_token)
    if token is not None:
        start_us, end_us, *position_list = token
        position = tuple(position_list)
        asked = asked.fixed(Window(int(start_us), int(end_us)))
    return SpendQuery(
        asked=asked,
        group_by=tuple([_DIMENSIONS[dimension] for dimension in request.group_by]),
        spend_filter=filter_of(request.filter, "filter"),
        tag_share=TagShare.SPLIT if request.tag_share == pb.TAG_SHARE_SPLIT else TagShare.FULL,
        order=Order.COST if request.order == pb.SPEND_ORDER_COST else Order.KEYS,
        compare=request.compare,
        page_size=request.page_size or _PAGE_SIZE_DEFAULT,
        after=position,
    ).check()


def _asked(request: pb.SummarizeSpendRequest) -> AskedWindow:
    return AskedWindow(
        start_us=microseconds_of(request.start_time) if request.HasField("start_time") else None,
        end_us=microseconds_of(request.end_time) if request.HasField("end_time") else None,
        rolling_us=request.rolling.ToNanoseconds() // _MICROSECOND_NS,
        period=request.period,
        zone=check_zone(request.time_zone, "time_zone"),
    )


def _fingerprint(request: pb.SummarizeSpendRequest, project_id: str) -> bytes:
    asked = pb.SummarizeSpendRequest()
    asked.CopyFrom(request)
    asked.ClearField("page_token")
    asked.ClearField("page_size")
    return filter_fingerprint("SummarizeSpend", project_id, asked.SerializeToString(deterministic=True).hex())


def summary_message(
    request: pb.SummarizeSpendRequest, project_id: str, summary: SpendSummary
) -> pb.SummarizeSpendResponse:
    """A page of the answer, with the token of the next one."""
    window, before = summary.window, summary.window_before
    token = ""
    if summary.more:
        position = (window.start_us, window.end_us, *summary.rows[-1].position)
        token = encode_page_token(_fingerprint(request, project_id), position)
    return pb.SummarizeSpendResponse(
        rows=[_row(row) for row in summary.rows],
        total=_compared(sums_message([], summary.total), summary.before),
        held_nano_usd=summary.held_nano_usd,
        next_page_token=token,
        start_time=timestamp_of(window.start_us),
        end_time=timestamp_of(window.end_us),
        start_time_before=timestamp_of(before.start_us) if before else None,
        end_time_before=timestamp_of(before.end_us) if before else None,
    )


def _row(row: SpendRow) -> pb.SpendRow:
    return _compared(sums_message(row.keys, row.sums), row.before)


def _compared(message: pb.SpendRow, before: Sums | None) -> pb.SpendRow:
    if before is not None:
        message.calls_before = before.calls
        message.cost_before.CopyFrom(
            usage_pb2.Cost(cost_nano_usd=before.cost_nano_usd, unpriced_calls=before.unpriced_calls)
        )
    return message


def export_of(request: pb.ExportSpendRequest, project_id: str, page_size: int) -> tuple[SpendQuery, SpendWriter]:
    """What to read for a file, page by page, and who writes it; InvalidField for what cannot be exported."""
    asked = request.question
    for field in ("page_size", "page_token", "order", "compare"):
        if getattr(asked, field):
            raise InvalidField(f"question.{field}", "A file has every group, by its keys; leave this out.")
    question = pb.SummarizeSpendRequest()
    question.CopyFrom(asked)
    question.page_size = page_size
    if request.format != pb.SPEND_FORMAT_FOCUS_CSV:
        query = query_of(question, project_id)
        return query, (CsvWriter if request.format == pb.SPEND_FORMAT_CSV else JsonLinesWriter)(query.group_by)
    if asked.tag_share == pb.TAG_SHARE_FULL:
        raise InvalidField("question.tag_share", "The rows of a FOCUS export add up; leave this out, or ask for SPLIT.")
    by_number = {dimension: number for number, dimension in _DIMENSIONS.items()}
    groups = focus_groups(tuple([_DIMENSIONS[dimension] for dimension in asked.group_by]))
    question.group_by[:] = [by_number[dimension] for dimension in groups]
    question.tag_share = pb.TAG_SHARE_SPLIT if Dimension.TAG in groups else pb.TAG_SHARE_UNSPECIFIED
    query = query_of(question, project_id)
    return query, FocusWriter(project_id, groups, query.asked.zone)
