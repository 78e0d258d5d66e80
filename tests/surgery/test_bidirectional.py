"""Decoders that attend both ways: small, randomly initialised, of several families."""

import copy
import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn

from embedkit.surgery.bidirectional import bidirectional

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
}
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
WINDOW = {"sliding_window": 2}
FAMILIES = {
    "llama": SIZES,
    "qwen2": SIZES,
    "gpt2": {**GPT2, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "mistral": {**SIZES, **WINDOW},
    "gemma3_text": {**SIZES, **WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
}
FULL = ["llama", "qwen2", "gpt2"]
every_family = pytest.mark.parametrize("family", FAMILIES)
every_way = pytest.mark.parametrize("how", ["eager", "sdpa"])
IDS = torch.tensor([[3, 9, 4, 17, 30, 8]])


@pytest.fixture(scope="module")
def auto():
    return importlib.import_module("transformers")


def build(auto, family, how="sdpa", head=False, **changes):
    torch.manual_seed(0)
    config = auto.AutoConfig.for_model(family, **{**FAMILIES.get(family, SIZES), **changes})
    kind = auto.AutoModelForCausalLM if head else auto.AutoModel
    return kind.from_config(config, attn_implementation=how, dtype=torch.float32).eval()


def states(model, ids=IDS, mask=None, **inputs):
    return model(input_ids=ids, attention_mask=mask, **inputs).last_hidden_state


def changed():
    ids = IDS.clone()
    ids[0, -1] = 21
    return ids


# Who sees whom.


@every_way
@every_family
def test_later_tokens_change_earlier_states_inside_only(auto, family, how):
    model = build(auto, family, how)
    for mask in (None, torch.ones_like(IDS)):
        before = states(model, mask=mask)
        torch.testing.assert_close(states(model, changed(), mask)[:, :-1], before[:, :-1])
        with bidirectional(model) as same:
            assert same is model
            moved = (states(model, changed(), mask) - states(model, mask=mask)).abs().amax(-1)
        reached = moved[0] > 1e-6
        if family == "mistral":  # two layers of two tokens to the right reach four tokens
            assert reached.tolist() == [False, *[True] * 5]
        else:
            assert reached.all()
        torch.testing.assert_close(states(model, mask=mask), before, rtol=0, atol=0)


@every_way
@every_family
def test_padding_on_either_side_never_matters(auto, family, how):
    model, short = build(auto, family, how), IDS[:, :4]
    with bidirectional(model):
        want = states(model, short, torch.ones_like(short))
        for padding in (torch.zeros(1, 2).long(), torch.tensor([[31, 12]])):
            for left in (False, True):
                ids = torch.cat([padding, short] if left else [short, padding], dim=1)
                mask = torch.cat([padding * 0, short**0] if left else [short**0, padding * 0], 1)
                positions = (mask.cumsum(1) - 1).clamp(min=0)
                got = states(model, ids, mask, position_ids=positions)[mask.bool()]
                torch.testing.assert_close(got, want[0], rtol=1e-4, atol=1e-5)


@every_way
@pytest.mark.parametrize("family", FULL)
def test_agrees_with_a_mask_of_four_axes_that_hides_padding_alone(auto, family, how):
    model = build(auto, family, how)
    ids, mask = IDS.repeat(2, 1), torch.ones(2, 6).long()
    mask[1, 4:] = 0
    seen = mask.bool()[:, None, None].expand(2, 1, 6, 6)
    if how == "eager":
        seen = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    want = model(input_ids=ids, attention_mask=seen).last_hidden_state
    with bidirectional(model):
        got = states(model, ids, mask)
    torch.testing.assert_close(got[mask.bool()], want[mask.bool()])


def test_agrees_with_an_encoder_of_equal_weights(auto):
    """A layer of GPT-2 is a layer of torch with the norm first, without the causal mask."""
    model = build(auto, "gpt2", n_layer=1, activation_function="gelu")
    layer, block = nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", 1e-5, True, True), model.h[0]
    pairs = {
        layer.self_attn.in_proj_weight: block.attn.c_attn.weight.T,
        layer.self_attn.in_proj_bias: block.attn.c_attn.bias,
        layer.self_attn.out_proj.weight: block.attn.c_proj.weight.T,
        layer.self_attn.out_proj.bias: block.attn.c_proj.bias,
        layer.linear1.weight: block.mlp.c_fc.weight.T,
        layer.linear1.bias: block.mlp.c_fc.bias,
        layer.linear2.weight: block.mlp.c_proj.weight.T,
        layer.linear2.bias: block.mlp.c_proj.bias,
    }
    for ours, theirs in pairs.items():
        ours.data.copy_(theirs)
    want = model.ln_f(layer.eval()(model.wte(IDS) + model.wpe(torch.arange(6))))
    with bidirectional(model):
        torch.testing.assert_close(states(model), want, rtol=1e-4, atol=1e-5)


@every_family
def test_ways_of_attending_agree(auto, family):
    mask, found = torch.tensor([[1, 1, 1, 1, 1, 0]]), []
    for how in ("eager", "sdpa"):
        with bidirectional(build(auto, family, how)) as model:
            found.append(states(model, mask=mask)[:, :5])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, within transformers
def test_flex_attention_agrees(auto):
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]])
    with bidirectional(build(auto, "llama")) as model, torch.no_grad():
        want = states(model, mask=mask)[:, :5]
    with bidirectional(build(auto, "llama", "flex_attention")) as model, torch.no_grad():
        got = states(model, mask=mask)[:, :5]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_flash_attention_is_told_to_look_both_ways(auto, monkeypatch):
    """Its kernels need a GPU: a stand-in that records what it was asked for."""
    asked = []

    def attend(module, query, key, value, attention_mask, is_causal=None, **_):
        asked.append(module.is_causal if is_causal is None else is_causal)
        return value.repeat_interleave(2, dim=1).transpose(1, 2), None

    interface = importlib.import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    monkeypatch.setitem(interface._global_mapping, "flash_attention_2", attend)
    model = build(auto, "llama")
    model.config._attn_implementation_internal = "flash_attention_2"
    states(model)
    with bidirectional(model):
        states(model)
    states(model)
    assert asked == [True, True, False, False, True, True]


def test_a_layer_called_alone_looks_both_ways_too(auto):
    """Without the model around it, a layer knows of its own flag alone."""
    model = build(auto, "gpt2")

    def moved():
        first, last = (model.h[0](model.wte(ids), attention_mask=None) for ids in (IDS, changed()))
        return (first - last)[0, 0].abs().max().item()

    assert moved() == 0
    with bidirectional(model):
        assert moved() > 1e-6
    assert moved() == 0


# Gradients.


@every_way
@pytest.mark.parametrize("family", FULL)
def test_gradients_flow_from_early_states_to_late_tokens(auto, family, how):
    model = build(auto, family, how)
    embeddings = model.get_input_embeddings()(IDS).detach().requires_grad_()
    with bidirectional(model):
        model(inputs_embeds=embeddings).last_hidden_state[0, 0].pow(2).sum().backward()
    assert embeddings.grad.abs().amax(-1).gt(0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    embeddings.grad = None
    model(inputs_embeds=embeddings).last_hidden_state[0, 0].pow(2).sum().backward()
    assert embeddings.grad[0, 1:].abs().max() == 0


def test_checkpointed_gradients_agree(auto):
    model, grads = build(auto, "llama").train(), []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable()
        model.zero_grad()
        with bidirectional(model):
            states(model)[0, 0].pow(2).sum().backward()
        grads.append(model.layers[0].self_attn.q_proj.weight.grad.clone())
    torch.testing.assert_close(*grads)


# What is put back.


def everything(model):
    """Flags, hooks and the config, as they are now."""
    flags = {n: getattr(m, "is_causal", "none") for n, m in model.named_modules()}
    hooks = {n: len(m._forward_pre_hooks) for n, m in model.named_modules()}
    return flags, hooks, copy.deepcopy(vars(model.config)), model.config.to_json_string()


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_the_model_comes_back_as_it_was_also_after_an_error(auto, family):
    model = build(auto, family, head=True)
    before, weights = everything(model), copy.deepcopy(model.state_dict())

    def use():
        with bidirectional(model):
            assert everything(model) != before
            with bidirectional(model.base_model):
                model(input_ids=IDS)
            with bidirectional(model):
                pass
            moved = model(input_ids=IDS).logits - model(input_ids=changed()).logits
            assert moved[0, 4].abs().max() > 0  # still both ways after the inner ones
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        use()
    assert everything(model) == before
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)


def test_a_model_that_looks_both_ways_stays_so(auto):
    model = build(auto, "llama", is_causal=False)
    want = states(model)
    with bidirectional(model):
        torch.testing.assert_close(states(model), want)
    assert model.config.is_causal is False
    torch.testing.assert_close(states(model), want)


def test_saved_inside_it_loads_as_a_model_that_looks_both_ways(auto, tmp_path):
    model = build(auto, "qwen2")
    with bidirectional(model):
        want = states(model)
        model.save_pretrained(tmp_path)
    loaded = auto.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(states(loaded), want)


def test_a_module_around_the_model_will_do(auto):
    model = nn.ModuleDict({"text": build(auto, "llama"), "top": nn.Linear(16, 4)})
    before = states(model["text"])
    with bidirectional(model):
        assert (states(model["text"])[0, 0] - before[0, 0]).abs().max() > 1e-4


def test_importing_it_imports_no_transformers():
    code = "import sys, embedkit.surgery.bidirectional; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# What can't be made to look ahead.


def refused(model, words, error=ValueError):
    before = {n: getattr(m, "is_causal", "none") for n, m in model.named_modules()}
    with pytest.raises(error, match=words), bidirectional(model):
        pass
    assert {n: getattr(m, "is_causal", "none") for n, m in model.named_modules()} == before


def test_unsupported_implementations_are_named(auto):
    model = build(auto, "llama")
    model.config._attn_implementation_internal = "paged|eager"
    refused(
        model,
        r"bidirectional: attention implementation must be one of eager, sdpa, flex_attention, "
        r"flash_attention_2 or later, got 'paged\|eager' in LlamaModel. "
        r"Call model.set_attn_implementation\('sdpa'\) before.",
    )


def test_models_without_attention_to_change_are_named(auto):
    refused(nn.Linear(2, 2), "got Linear without any. Recurrent models")
    sizes = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1}
    model = auto.AutoModel.from_config(auto.AutoConfig.for_model("mamba", **sizes))
    refused(model, "expected a Hugging Face decoder .* got MambaModel without any")


def test_models_with_masks_of_their_own_are_named(auto):
    sizes = {"vocab_size": 8, "hidden_size": 8, "num_layers": 1, "num_heads": 2}
    sizes |= {"attention_types": [[["global"], 1]], "max_position_embeddings": 8}
    model = auto.AutoModel.from_config(auto.AutoConfig.for_model("gpt_neo", **sizes))
    refused(model, "GPTNeoSelfAttention in GPTNeoModel makes its causal mask itself")

    class Attention(nn.Module):
        is_causal = True

    refused(Attention(), "Attention in Attention makes its causal mask itself")


def test_chunks_and_biases_are_named(auto):
    model = build(auto, "qwen2")
    model.config.layer_types = ["chunked_attention", "full_attention"]
    refused(model, "must be full_attention or sliding_attention, got chunked_attention in Qwen2")
    model.config.layer_types, model.config.alibi = None, True
    refused(model, "got ALiBi biases in Qwen2Model. No mask makes these look ahead")


def test_encoder_decoders_are_named(auto):
    model = build(auto, "llama")
    model.config.is_encoder_decoder = True
    refused(model, "got LlamaModel, an encoder-decoder. Its encoder attends both ways already")


def test_old_versions_are_named(auto, monkeypatch):
    model = build(auto, "llama")
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "4.57.1")
    refused(model, "expected transformers 5.2 or later, got 4.57.1", ImportError)


def test_caches_and_packed_texts_are_refused(auto):
    model = build(auto, "llama")
    cache = model(input_ids=IDS, use_cache=True).past_key_values
    with bidirectional(model):
        with pytest.raises(ValueError, match="must be empty, got a cache of 6 tokens"):
            model(input_ids=IDS, past_key_values=cache)
        with pytest.raises(ValueError, match="position_ids need an attention_mask beside them"):
            model(input_ids=IDS, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]))
        with pytest.raises(ValueError, match="position_ids need an attention_mask beside them"):
            model(IDS, None, torch.tensor([[0, 1, 2, 0, 1, 2]]))
