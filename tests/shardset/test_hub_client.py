"""Tokens never get into a line, and small files are known by git's own hash."""

from cgankd.shardset.hub.client import git_blob, without_token


def test_the_token_in_use_is_left_out_whatever_it_looks_like():
    """An enterprise Hub's need not begin with hf_."""
    assert without_token("Bearer s3cret, s3cret!", "s3cret") == "Bearer ***, ***!"


def test_other_tokens_are_left_out_too():
    """As in a message about a token that was used before; names that begin alike are kept."""
    line = "hf_abcdefgh12345 and hf_oauth_abcdefgh, set hf_hub in HF_TOKEN"

    assert without_token(line, None) == "*** and ***, set hf_hub in HF_TOKEN"


def test_a_blob_is_what_git_says():
    """The values of `git hash-object`."""
    assert git_blob(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
