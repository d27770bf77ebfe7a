"""A configured text as a model reads it: contexts of its tokens, through its chat template where that is asked for."""

from __future__ import annotations

from pathlib import Path

from atlas_builder.config import CorpusSettings
from atlas_builder.corpus import documents
from atlas_builder.corpus.contexts import Contexts, write_contexts
from atlas_builder.corpus.documents import Skipped
from atlas_builder.errors import CorpusError
from atlas_builder.models.chat import ChatTemplate
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.progress import Progress


def write_corpus(
    model: LanguageModel,
    corpus: CorpusSettings,
    folder: Path,
    bos: int | None,
    skipped: Skipped | None = None,
    progress: Progress | None = None,
) -> Contexts:
    """Write the contexts of a configured text, as it is or, with `corpus.chat`, through the model's chat template.

    Raises `ConfigurationError` where the model has no chat template, before anything is read, and what
    `write_contexts` and `documents` do.
    """
    skipped, progress = skipped or Skipped(), progress or Progress(quiet=True)
    template = ChatTemplate(model, bos) if corpus.chat else None
    stream = documents.documents(corpus, skipped)
    with progress.task("tokenise", total=corpus.max_tokens, unit="tokens") as advance:
        read = write_contexts(
            stream if template is None else template.rendered(stream, corpus, skipped),
            model.encode,
            folder,
            context=corpus.context,
            bos=bos,
            max_tokens=corpus.max_tokens,
            max_documents=corpus.max_documents,
            texts=model.token_texts,
            on_tokens=advance,
            chat=None if template is None else template.encode,
        )
    if corpus.chat and not read.counted:
        raise CorpusError("corpus.chat: all tokens are the chat template's own: give longer messages or more tokens.")
    return read
