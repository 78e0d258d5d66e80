"""How often each id comes by, learned from the stream of batches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_integer, check_ndim


class FrequencyEstimator(nn.Module):
    """Probability of each id in a stream of training examples, from the gaps between its visits.

    At an id's visit at time t, with a the time of the visit before (0 at first),

        gap = (1 - rate) gap + rate (t - a),    q = 1 / gap,

    so q follows a stream whose frequencies change. :meth:`update` with the ids of a batch, then
    calling the Module gives log q of any ids, which
    :func:`embedkit.losses.sampled_softmax` takes::

        frequency.update(item_ids)
        loss = sampled_softmax(user, item, frequency(item_ids), key_ids=item_ids)

    Time counts examples, and how the stream is cut into batches does not matter. The examples must
    come in random order. All state is in ``state_dict``: 16 bytes per id. Ranks each learn from
    their own examples; ``update(gather_rows(ids))`` lets all hold the same. Ids without a limit
    share places by a hash: ``stable_hash(ids) % num_embeddings``, which counts what meets there
    together. Cast to float16, gaps above 65,504 overflow: keep the Module in float32.

    Args:
        num_embeddings: ids are 0 to num_embeddings - 1.
        rate: in (0, 1], the share of the newest gap. log q of an often seen id has a standard
            deviation of about sqrt(rate / 2).

    Raises:
        ValueError: if ``num_embeddings`` is below 1 or ``rate`` outside of (0, 1].

    Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, algorithm 2.
    Differs: time counts examples instead of batches, so that an id that is twice in a batch counts
    twice, and q is the probability of one draw (the paper's: of being in a batch, which ends at 1);
    batches of one are the paper's. The average starts without a prior: it is divided by the weight
    that it has gathered. There is no hash inside.

    >>> frequency = FrequencyEstimator(4, rate=0.1)
    >>> frequency.update(torch.tensor([0, 1, 0, 2, 0, 1, 0, 2]))
    >>> frequency(torch.tensor([0, 1])).exp()
    tensor([0.5593, 0.3276])
    """

    time: Tensor
    last: Tensor
    gap: Tensor
    mass: Tensor

    def __init__(self, num_embeddings: int, rate: float = 0.01) -> None:
        super().__init__()
        check_at_least("FrequencyEstimator", "num_embeddings", num_embeddings, 1)
        if not 0 < rate <= 1:
            raise ValueError(
                f"FrequencyEstimator: rate must be in (0, 1], got {rate:g}. It is the share of the "
                "newest gap; 0.01 averages over about a hundred visits."
            )
        self.rate = rate
        self.register_buffer("time", torch.zeros((), dtype=torch.long))
        self.register_buffer("last", torch.zeros(num_embeddings, dtype=torch.long))
        self.register_buffer("gap", torch.zeros(num_embeddings))
        self.register_buffer("mass", torch.zeros(num_embeddings))

    @torch.no_grad()
    def update(self, ids: Int[Tensor, " n"]) -> None:
        """Take in the next examples of the stream, in their order.

        Args:
            ids: one id per example; the same one may come several times.

        Raises:
            RuntimeError: in evaluation mode.
            TypeError: if ``ids`` are not integers.
            ValueError: if they have more than one axis.
            IndexError: if one is not 0 to num_embeddings - 1.
        """
        if not self.training:
            raise RuntimeError(
                "FrequencyEstimator: update in evaluation mode would count evaluated examples. "
                "Update in training only, or call train() first."
            )
        check_ndim("ids", ids, "n")
        ids, order = self._look_up(ids, self.last)[1].sort(stable=True)
        moment = self.time + 1 + order
        start = torch.searchsorted(ids, ids)
        end = torch.searchsorted(ids, ids, right=True)
        place = torch.arange(ids.shape[0], device=ids.device)
        before = torch.where(place > start, moment.roll(1), self.last[ids])
        # A loop over the m visits of an id leaves the k-th with the weight rate (1 - rate)^(m - k).
        keep = 1.0 - self.rate
        share = self.rate * keep ** (end - 1 - place).to(self.gap.dtype)
        decay = keep ** (end - start).to(self.gap.dtype)
        for total, value in ((self.gap, (moment - before).to(share.dtype)), (self.mass, 1.0)):
            total[ids] = total[ids] * decay  # equal ids write the same
            total.index_add_(0, ids, share * value)
        self.last[ids] = moment[end - 1]
        self.time += ids.shape[0]

    def forward(self, ids: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """log q of ids; -log(time + 1) for one that never came.

        Raises:
            TypeError: if ``ids`` are not integers.
            IndexError: if one is not 0 to num_embeddings - 1.
        """
        gap, ids = self._look_up(ids, self.gap)
        mass = self.mass[ids]
        unseen = (self.time + 1).to(gap.dtype)
        return -torch.where(mass > 0, gap / mass.masked_fill(mass == 0, 1.0), unseen).log()

    def _look_up(self, ids: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Entries of a table, and the ids as long; negative ids do not count from the end."""
        check_integer("ids", ids, "Number the items from 0.")
        ids = ids.long()
        try:
            return table.index_select(0, ids.flatten()).reshape(ids.shape), ids
        except (IndexError, RuntimeError) as error:
            raise IndexError(
                f"FrequencyEstimator: ids must be 0 to {len(table) - 1}, got {int(ids.min())} to "
                f"{int(ids.max())}. Raise num_embeddings, or hash the ids into that range."
            ) from error

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"num_embeddings={len(self.gap)}, rate={self.rate:g}"
