"""Models: language models with their tokenizers, CRATEs, SAEs, and the memory they run in."""
