"""Texts become token ids: templates, the token budget, and the forest of prompts and answers.

Knows nothing of models beyond their tokenizer, and imports no torch.
"""
