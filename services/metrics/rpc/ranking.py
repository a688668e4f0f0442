"""Games and rankings: protobuf to domain and back."""

from __future__ import annotations

from llmlab.api.metrics.v1 import statistics_pb2 as pb
from services.metrics.ranking import Games, Ranking
from services.metrics.rpc.statistics import packed


async def read_games(request: pb.RankRequest) -> Games:
    """The games, packed for a worker."""
    return Games(
        tuple(request.players),
        await packed("q", request.first),
        await packed("q", request.second),
        await packed("d", request.scores),
        await packed("q", request.clusters),
    )


def ranking_message(ranking: Ranking) -> pb.RankResponse:
    """A ranking on the wire."""
    return pb.RankResponse(
        standings=[
            pb.Standing(
                player=each.player,
                rating=each.rating,
                low=each.interval.low,
                high=each.interval.high,
                rank=each.rank,
                best_rank=each.best_rank,
                worst_rank=each.worst_rank,
                within_noise_of_next=each.within_noise,
                wins=each.wins,
                ties=each.ties,
                losses=each.losses,
            )
            for each in ranking.standings
        ],
        separated=ranking.separated,
        games=ranking.games,
        clusters=ranking.clusters,
    )
