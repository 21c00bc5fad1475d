"""The address of the book follows from its settings, or from the service that builds it."""

import pytest
from book_address import Address
from sphinx.errors import ConfigError

find = Address.find


def test_no_address_is_known_without_a_setting():
    assert find({}) == Address()


def test_github_actions_name_the_repository_and_so_the_site():
    found = find({"GITHUB_REPOSITORY": "Somebody/scanvi-tutorial"})
    assert found.repository == "https://github.com/Somebody/scanvi-tutorial"
    assert found.site == "https://somebody.github.io/scanvi-tutorial/"


def test_the_repository_of_a_home_page_is_published_at_its_root():
    assert find({"GITHUB_REPOSITORY": "lab/lab.github.io"}).site == "https://lab.github.io/"


def test_a_setting_wins_over_the_service_that_builds():
    found = find({"GITHUB_REPOSITORY": "fork/book"}, repository="lab/book", site="https://book.example.org")
    assert found.repository == "https://github.com/lab/book"
    assert found.site == "https://book.example.org/"


@pytest.mark.parametrize("clone", ["https://github.com/lab/book.git", "git@github.com:lab/book.git"])
def test_read_the_docs_names_both(clone):
    site = "https://book.readthedocs.io/en/latest/"
    found = find({"READTHEDOCS_GIT_CLONE_URL": clone, "READTHEDOCS_CANONICAL_URL": site})
    assert found.repository == "https://github.com/lab/book"
    assert found.site == site


@pytest.mark.parametrize("name", ["book", "https://github.com/lab/book", "lab/book/", "lab book/x"])
def test_a_repository_that_is_no_owner_and_name_is_refused_in_words(name):
    with pytest.raises(ConfigError, match="must read owner/name"):
        find({}, repository=name)


def test_a_site_that_is_no_address_is_refused_in_words():
    with pytest.raises(ConfigError, match="book_site"):
        find({}, repository="lab/book", site="book.example.org")
