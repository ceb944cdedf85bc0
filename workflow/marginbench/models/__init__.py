"""Loading models and tokenizers, the chat template, adapters, and the manifest that stands for their weights."""
