"""Soups: means of checkpoints, from memory and from files."""

import copy
import importlib
import os
import random
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from embedkit.surgery import _average
from embedkit.surgery.soup import delta_soup, greedy_soup, uniform_soup

MODES = ["proportional", "inverse", "softmax"]
every_mode = pytest.mark.parametrize("mode", MODES)
seeds = st.integers(0, 2**31)
few = settings(max_examples=15)
BASE = {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}
MOVED = [{"w": torch.tensor(w, dtype=torch.float64)} for w in ([1.3, 0.6], [1.0, 1.1])]


def network():
    layers = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Embedding(5, 2).bfloat16()
    return nn.Sequential(*layers, nn.Linear(3, 2).double())


def states(seed, count=3):
    """Several states of one network, whose counters and statistics differ as well."""
    torch.manual_seed(seed)
    found = []
    for step in range(count):
        module = network()
        module[1].train()(torch.randn(6, 3))
        module[1].num_batches_tracked.fill_(step)
        found.append(module.state_dict())
    return found


def assert_same(got, want, **tolerance):
    assert set(got) == set(want)
    for name in want:
        torch.testing.assert_close(got[name], want[name], msg=name, **tolerance)


def write(folder, found):
    """As files: the first of torch.save, the second of safetensors, and so on."""
    safetensors = importlib.import_module("safetensors.torch")
    paths = []
    for i, state in enumerate(found):
        paths.append(folder / f"{i}.{'safetensors' if i % 2 else 'pt'}")
        (safetensors.save_file if i % 2 else torch.save)(state, paths[-1])
    return paths


# Other people's code, and numbers by hand.


def test_uniform_soup_agrees_with_averaged_model():
    torch.manual_seed(0)
    modules = [nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double() for _ in range(4)]
    averaged = AveragedModel(modules[0])
    for module in modules:
        averaged.update_parameters(module)
    soup = uniform_soup([module.state_dict() for module in modules])
    assert_same(soup, averaged.module.state_dict(), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("mode", "want"),
    [("proportional", (1.25, 0.683333)), ("inverse", (1.05, 1.016667)), ("uniform", (1.15, 0.85))],
)
def test_hand_numbers(mode, want):
    soup = uniform_soup(MOVED) if mode == "uniform" else delta_soup(BASE, MOVED, mode)
    torch.testing.assert_close(soup["w"], torch.tensor(want).double(), atol=5e-7, rtol=0)


def test_softmax_of_relative_distances():
    share = torch.tensor([0.5 / 0.3 / 2, 0.1 / 0.3 / 2]).double().softmax(0)
    want = BASE["w"] + sum(a * (m["w"] - BASE["w"]) for a, m in zip(share, MOVED, strict=True))
    got = delta_soup(BASE, MOVED, "softmax", temperature=2.0)
    torch.testing.assert_close(got["w"], want, atol=1e-7, rtol=0)


def test_a_linear_models_soup_gives_the_mean_of_outputs():
    torch.manual_seed(0)
    modules, weights = [nn.Linear(4, 3) for _ in range(3)], [1.0, 2.0, 5.0]
    soup = nn.Linear(4, 3)
    soup.load_state_dict(uniform_soup([m.state_dict() for m in modules], weights))
    x = torch.randn(7, 4)
    want = sum(w * m(x) for w, m in zip(weights, modules, strict=True)) / 8
    torch.testing.assert_close(soup(x), want)


@given(seed=seeds, count=st.integers(1, 5))
def test_greedy_soup_agrees_with_a_plain_loop(seed, count):
    torch.manual_seed(seed)
    rows, wanted = torch.randn(count, 3).double(), torch.randn(3).double()

    def evaluate(state):
        return -torch.dist(state["w"], wanted).item()

    alone = [evaluate({"w": row}) for row in rows]
    order = sorted(range(count), key=lambda i: -alone[i])
    kept, best = order[:1], max(alone)
    for i in order[1:]:
        if (score := evaluate({"w": rows[[*kept, i]].mean(0)})) >= best:
            kept, best = [*kept, i], score
    found = greedy_soup([{"w": row} for row in rows], evaluate)
    assert found.kept == kept
    assert found.scores == pytest.approx(alone, abs=1e-12)
    assert found.score == pytest.approx(best, abs=1e-12)
    torch.testing.assert_close(found.state["w"], rows[kept].mean(0))
    assert found.score >= max(found.scores) - 1e-12


# What must not matter.


@few
@given(seed=seeds)
def test_order_of_names_does_not_matter(seed):
    found = states(seed)
    shuffled = [found[0]]
    for state in found[1:]:
        names = list(state)
        random.Random(seed).shuffle(names)
        shuffled.append({name: state[name] for name in names})
    assert_same(uniform_soup(shuffled), uniform_soup(found), rtol=0, atol=0)
    assert_same(delta_soup(*split(shuffled)), delta_soup(*split(found)), rtol=0, atol=0)
    assert_same(greedy_soup(shuffled, norm).state, greedy_soup(found, norm).state, rtol=0, atol=0)


def split(found):
    return found[0], found[1:]


def norm(state):
    return -state["0.weight"].norm().item()


@few
@given(seed=seeds, count=st.integers(1, 7))
def test_equal_checkpoints_give_that_checkpoint(seed, count):
    state = states(seed, 1)[0]
    base = states(seed + 1, 1)[0]
    narrow = {n: t for n, t in state.items() if t.dtype != torch.float64}
    soup = uniform_soup([state] * count)
    assert_same({n: soup[n] for n in narrow}, narrow, rtol=0, atol=0)  # bit by bit
    assert_same(soup, state, rtol=1e-6, atol=0)
    for mode in MODES:
        assert_same(delta_soup(base, [state] * count, mode), state, rtol=1e-6, atol=0)
    assert_same(greedy_soup([state] * count, norm).state, state, rtol=1e-6, atol=0)


@few
@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_only_the_ratio_of_weights_matters(seed, factor):
    found = states(seed)
    soup = uniform_soup(found, [1.0, 2.0, 4.0])
    assert_same(uniform_soup(found, [factor, 2 * factor, 4 * factor]), soup)
    alone = uniform_soup(found, [0.0, 0.0, 3.0])
    last = {n: t for n, t in found[2].items() if t.is_floating_point()}
    assert_same({n: alone[n] for n in last}, last, rtol=0, atol=0)


@few
@given(seed=seeds)
def test_a_delta_soup_stays_between_the_checkpoints(seed):
    found = states(seed, 4)
    low, high = (
        getattr(torch.stack([s["0.weight"] for s in found[1:]]), end)(0).values
        for end in ("min", "max")
    )
    for mode in MODES:
        soup = delta_soup(*split(found), mode)["0.weight"]
        assert ((soup >= low - 1e-6) & (soup <= high + 1e-6)).all()


@pytest.mark.parametrize("least", [1, 3, 7])
def test_portions_do_not_matter(least, monkeypatch):
    found = states(0, 4)
    whole = uniform_soup(found), greedy_soup(found, norm).state, delta_soup(*split(found))
    monkeypatch.setattr(_average, "_LEAST", least)
    parts = uniform_soup(found), greedy_soup(found, norm).state, delta_soup(*split(found))
    for got, want in zip(parts, whole, strict=True):
        assert_same(got, want)


def test_files_and_state_dicts_may_be_mixed(tmp_path):
    found = states(0, 4)
    paths = write(tmp_path, found)
    for given_ in (paths, [str(paths[0]), found[1], paths[2], found[3]], [found[0], *paths[1:]]):
        assert_same(uniform_soup(given_), uniform_soup(found), rtol=0, atol=0)
        assert_same(delta_soup(*split(given_)), delta_soup(*split(found)), rtol=0, atol=0)
        got, want = greedy_soup(given_, norm), greedy_soup(found, norm)
        assert_same(got.state, want.state, rtol=0, atol=0)
        assert got[1:] == want[1:]


# What is no weight.


def test_counters_are_those_of_the_first_and_the_soup_loads():
    found = states(0)
    for soup in (uniform_soup(found[::-1]), delta_soup(found[0], found[::-1])):
        assert soup["1.num_batches_tracked"] == 2
        assert soup._metadata == found[0]._metadata
        network().load_state_dict(soup)
    assert (
        greedy_soup(found, lambda s: s["1.num_batches_tracked"].item()).state[
            "1.num_batches_tracked"
        ]
        == 2
    )


def test_extra_states_are_copied():
    found = [{"w": torch.ones(2) * i, "a._extra_state": {"version": i}} for i in (1, 3)]
    soup = uniform_soup(found)
    assert soup["a._extra_state"] == {"version": 1}
    assert soup["w"].tolist() == [2.0, 2.0]


def test_what_was_given_is_left_alone():
    found = states(0)
    before = copy.deepcopy(found)
    soups = uniform_soup(found), greedy_soup(found, norm).state, delta_soup(*split(found))
    for soup in soups:
        for tensor in soup.values():
            assert not tensor.requires_grad
            tensor.fill_(1)
    for state, want in zip(found, before, strict=True):
        assert_same(state, want, rtol=0, atol=0)


def test_parameters_that_learn_are_averaged_without_a_graph():
    modules = [nn.Linear(2, 2), nn.Linear(2, 2)]
    soup = uniform_soup([module.state_dict(keep_vars=True) for module in modules])
    assert not soup["weight"].requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.complex64])
def test_types_come_back(dtype):
    rows = [torch.tensor([1, 4]).to(dtype), torch.tensor([3, 0]).to(dtype)]
    found = [{"w": row, "none": row[:0], "one": row[0]} for row in rows]
    want = {"w": (rows[0] + rows[1]) / 2, "none": rows[0][:0], "one": rows[0][0] * 2}
    assert_same(uniform_soup(found), want)
    assert_same(greedy_soup(found, lambda _: 0.0).state, want)
    assert_same(delta_soup({n: 2 * t for n, t in want.items()}, found), want, rtol=1, atol=9)


def test_large_numbers_of_half_precision_do_not_overflow():
    found = [{"w": torch.full((2,), 6e4, dtype=torch.float16)}] * 5
    assert_same(uniform_soup(found), found[0])
    assert_same(greedy_soup(found, lambda _: 0.0).state, found[0])


@every_mode
def test_a_tensor_that_nobody_moved_stays(mode):
    mask = torch.tensor([0.0, -torch.inf])
    found = [{"w": torch.randn(2), "mask": mask} for _ in range(3)]
    torch.testing.assert_close(delta_soup(*split(found), mode)["mask"], mask)
    base = {"w": torch.zeros(2, dtype=torch.float64)}
    assert_same(delta_soup(base, [base, base], mode), base)


def test_inverse_weights_follow_who_did_not_move():
    soup = delta_soup(BASE, [*MOVED, BASE], "inverse")
    assert_same(soup, BASE, rtol=0, atol=0)


@every_mode
def test_one_checkpoint_is_its_own_delta_soup(mode):
    assert_same(delta_soup(BASE, MOVED[:1], mode), MOVED[0], rtol=0, atol=0)


def test_equal_scores_keep_the_earlier_first_and_nan_is_not_taken():
    found = [{"w": torch.tensor(x)} for x in (2.0, 1.0, 4.0)]
    assert greedy_soup(found, lambda _: 0.5).kept == [0, 1, 2]
    values = iter([0.1, 0.3, 0.2, float("nan"), 0.3])
    found = greedy_soup(found, lambda _: next(values))
    assert found.kept == [1, 0]
    assert found.state["w"] == 1.5


# What a model costs.

MEASURE = """
import sys
import threading
import torch
from embedkit.surgery.soup import delta_soup, greedy_soup, uniform_soup

def anonymous():
    # Not the pages of mapped files, which the kernel may drop at any time.
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def peak(run, *args):
    most, done = [anonymous()], threading.Event()
    def watch():
        while not done.wait(0.001):
            most.append(max(most.pop(), anonymous()))
    before, thread = most[0], threading.Thread(target=watch)
    thread.start()
    run(*args)
    done.set()
    thread.join()
    return most[0] - before

base, *paths = sys.argv[1:]
size = sum(t.nbytes for t in torch.load(base, mmap=True).values())
score = lambda state: float(next(iter(state.values()))[0, 0])
for run in (uniform_soup, lambda s: greedy_soup(s, score), lambda s: delta_soup(s[0], s)):
    run([{"w": torch.zeros(4, 4)}] * 2)  # what is loaded once
for run in (uniform_soup, lambda s: greedy_soup(s, score), lambda s: delta_soup(base, s)):
    print(peak(run, paths) / size)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads Linux's account of memory"
)
@pytest.mark.parametrize("rows", [[2**14] * 4, [2**16 - 2**12, 2**12]], ids=["layers", "table"])
def test_memory_is_that_of_one_model(rows, tmp_path):
    paths = [tmp_path / "0.pt", tmp_path / "1.pt"]
    for i, path in enumerate(paths):  # of 64 MB
        torch.save({str(n): torch.full((r, 256), float(i)) for n, r in enumerate(rows)}, path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths * 3)],
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed goes back at once
    )
    assert done.returncode == 0, done.stderr
    uniform, greedy, delta = map(float, done.stdout.split())
    # The result; in greedy_soup also the running sum, or one checkpoint as it is evaluated.
    assert 1 < uniform < 1.3, done.stdout
    assert 2 < greedy < 2.3, done.stdout
    assert delta < 1.3, done.stdout


# What errors say.


def test_names_shapes_and_types_that_differ_are_named(tmp_path):
    first = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    second = {"a": torch.ones(2, 1), "b": torch.ones(3).half(), "d": torch.ones(1)}
    torch.save(second, tmp_path / "second.pt")
    want = (
        r"uniform_soup: expected names, shapes and types as in checkpoint 0, got: checkpoint 1 "
        r"\(second.pt\) lacks 'c'; checkpoint 1 \(second.pt\) also has 'd'; checkpoint 1 "
        r"\(second.pt\) has 'a' \(2, 1\) float32, not \(2,\) float32, 'b' \(3,\) float16, not "
        r"\(3,\) float32. Only checkpoints of one architecture can be averaged."
    )
    with pytest.raises(ValueError, match=want):
        uniform_soup([first, tmp_path / "second.pt"])
    with pytest.raises(ValueError, match=r"greedy_soup: .* checkpoint 2 lacks 'a', 'b', 'c'"):
        greedy_soup([first, first, {}], norm)
    with pytest.raises(ValueError, match=r"delta_soup: .* as in base, got: checkpoint 0 lacks 'c'"):
        delta_soup(first, [second])


def test_many_names_are_counted_and_wrappers_are_guessed():
    first = {f"l{i}": torch.ones(1) for i in range(9)}
    second = {f"module.l{i}": torch.ones(1) for i in range(9)}
    with pytest.raises(
        ValueError,
        match=r"lacks 'l0', 'l1', 'l2', 'l3', 'l4' and 4 more; .* Names with module. or "
        r"_orig_mod. come from a wrapper",
    ):
        uniform_soup([first, second])


@pytest.mark.parametrize("soup", [uniform_soup, lambda s: greedy_soup(s, norm)])
def test_an_empty_list_is_refused(soup):
    with pytest.raises(ValueError, match=r"expected one checkpoint or more, got an empty list"):
        soup([])
    with pytest.raises(ValueError, match=r"delta_soup: expected one checkpoint or more"):
        delta_soup(BASE, [])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"uniform_soup: expected 2 weights, got 1"),
        ([1.0, -1.0], r"weights must be >= 0, finite and not all 0, got \[1.0, -1.0\]"),
        ([0.0, 0.0], r"not all 0"),
        ([1.0, float("nan")], r"finite"),
        ([1.0, float("inf")], r"finite"),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        uniform_soup(MOVED, weights)


@pytest.mark.wording
def test_what_is_no_state_dict_is_refused():
    with pytest.raises(TypeError, match=r"checkpoints must be a list, got one str"):
        uniform_soup("model.pt")
    with pytest.raises(TypeError, match=r"checkpoints must be a list, got one OrderedDict"):
        uniform_soup(OrderedDict(BASE))
    with pytest.raises(TypeError, match=r"checkpoint 1 must be a state dict .* got Linear. Of a"):
        uniform_soup([BASE, nn.Linear(1, 1)])


def test_files_that_hold_something_else_are_refused(tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"model": BASE, "step": 3}, path)
    with pytest.raises(
        TypeError,
        match=r"uniform_soup: checkpoint 0 \(run.pt\) must hold tensors by name, got dict under "
        r"'model'. If the weights are one part of it, pass that part",
    ):
        uniform_soup([path])
    torch.save(BASE, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"checkpoint 0 \(run.pt\) is no file of torch.save that"):
        uniform_soup([path])
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(ValueError, match=r"holds tensors alone. Save module.state_dict"):
        uniform_soup([path])
    with pytest.raises(FileNotFoundError):
        uniform_soup([tmp_path / "none.pt"])


def test_safetensors_are_asked_for_where_they_are_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"needs the package safetensors. Install it, or give"):
        uniform_soup([tmp_path / "model.safetensors"])


@pytest.mark.wording
def test_other_modes_are_refused():
    with pytest.raises(ValueError, match=r"mode must be one of proportional, .* got 'square'"):
        delta_soup(BASE, MOVED, "square")


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"delta_soup: temperature must be > 0, got 0"):
        delta_soup(BASE, MOVED, "softmax", temperature=0.0)
    with pytest.raises(ValueError, match=r"must give a number, got nan for checkpoint 1"):
        greedy_soup(MOVED, lambda s: float("nan") if s is MOVED[1] else 0.0)
