"""The text of a PDF, page by page, through pypdf. Knows nothing of documents and chunks."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from litee.errors import InputError

#: What pypdf lets through on damaged files beside its own errors.
_DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RecursionError)


def pdf_pages(path: Path) -> list[str]:
    """The text of every page; a page without text (a scan) is "".

    Raises:
        InputError: the file is damaged or locked with a password.
        ModuleNotFoundError: pypdf is not installed (extra `documents`).
    """
    library = importlib.import_module("pypdf")
    errors = importlib.import_module("pypdf.errors")
    # its warnings on odd files are noise beside the count of broken ones
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        pages = [page.extract_text() or "" for page in library.PdfReader(path).pages]
    except (errors.PyPdfError, *_DAMAGE) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        fix = "save the PDF again without a password, or leave it out"
        raise InputError(f"cannot read the PDF: {reason}", place=str(path), fix=fix) from error
    if not pages:
        raise InputError("the PDF has no pages", place=str(path), fix="leave it out")
    return pages
