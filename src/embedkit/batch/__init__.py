"""Which rows a loss sees: samplers, large batches in little memory, rows of past batches."""

from embedkit.batch._chunks import Chunks
from embedkit.batch.class_samplers import Episode, EpisodeSampler, PKSampler, split_episode
from embedkit.batch.frequency import FrequencyEstimator
from embedkit.batch.gradient_cache import GradientCache
from embedkit.batch.memory import CrossBatchMemory, MemoryQueue
from embedkit.batch.momentum import MomentumUpdate
from embedkit.batch.task_samplers import DomainBalancedSampler, SingleTaskBatchSampler
from embedkit.batch.unique import NoDuplicateBatchSampler

__all__ = [
    "Chunks",
    "CrossBatchMemory",
    "DomainBalancedSampler",
    "Episode",
    "EpisodeSampler",
    "FrequencyEstimator",
    "GradientCache",
    "MemoryQueue",
    "MomentumUpdate",
    "NoDuplicateBatchSampler",
    "PKSampler",
    "SingleTaskBatchSampler",
    "split_episode",
]
