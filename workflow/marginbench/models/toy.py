"""A tiny random Llama with a byte-level tokenizer, made without any download. For tests; never shown as a result."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from marginbench.files import atomic_folder
from marginbench.identity import seed_for
from marginbench.study import ToyModel

BOS, END = "<|begin|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
HEAD_DIM = 16
WORDS = (" the", " a", " and", " of", " to", " is", " it", " in", " this", " that", " movie", " film", " was", " not")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def toy_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE: 256 bytes and a few common words. The end token is also the pad token, as in SmolLM2.

    With `bos` the tokenizer puts a begin token in front of every text and the chat template starts with one, so that a
    caller who applies both gets two.
    """
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in WORDS:
        left = "Ġ"
        for letter in word[1:]:
            if left + letter not in vocabulary:
                vocabulary[left + letter] = len(vocabulary)
                merges.append((left, letter))
            left += letter
    core = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([END, *ROLES, BOS])
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, core.token_to_id(BOS))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=END, pad_token=END, model_max_length=512, **({"bos_token": BOS} if bos else {})
    )
    tokenizer.chat_template = ("{{ bos_token }}" if bos else "") + CHAT_TEMPLATE
    return tokenizer


def build_toy(folder: str | Path, spec: ToyModel, seed: int, bos: bool = False) -> None:
    """Write config, safetensors and tokenizer of a randomly initialised model into `folder` (replaced as a whole)."""
    tokenizer = toy_tokenizer(bos)
    heads = max(2, spec.hidden_size // HEAD_DIM)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden_size,
        intermediate_size=2 * spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2 if heads % 2 == 0 else heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        # Wider than usual: with 0.02 the logits hardly depend on the input and tests could not see a mix-up.
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("initialisation", "toy", spec.hidden_size, spec.layers, seed))
        model = LlamaForCausalLM(config).to(torch.float32)
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
