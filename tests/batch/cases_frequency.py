"""The frequency estimator in the contract."""

import torch

from embedkit.batch.frequency import FrequencyEstimator

CONSTANT = {
    "gradients": "counts are constants",
    "compile": "counts are constants; test_frequency compiles it",
    "empty_batch": "its input has no gradient; test_frequency gives it none",
}


def counted():
    frequency = FrequencyEstimator(9, rate=0.1)
    frequency.update(torch.randint(0, 8, (40,)))
    return frequency


CASES = {FrequencyEstimator: (counted, lambda b: (torch.arange(b) % 9,), CONSTANT)}
