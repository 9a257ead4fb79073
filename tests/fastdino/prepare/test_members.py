from __future__ import annotations

from fastdino.prepare.members import Members


class Named:
    """A source of names and labels alone."""

    def __init__(self, names: list[str], labels: list[int] | None = None, classes: list[str] | None = None) -> None:
        self.names, self.labels, self.classes = names, labels or [-1] * len(names), classes or []

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        raise OSError

    def name(self, index: int) -> str:
        return self.names[index]

    def label(self, index: int) -> int:
        return self.labels[index]


def members(source: Named) -> list[str]:
    names = Members(source)
    return [names.picture(index) for index in range(len(source))]


def test_names_stay_where_they_can() -> None:
    source = Named(["cat/1.jpg", "dog/deep.er/2.PNG"], [0, 1], ["cat", "dog"])
    assert members(source) == ["cat/1.jpg", "dog/deep.er/2.png"]
    assert Members(source).class_file(0) is None
    assert Members(source).picture(1, "jpg") == "dog/deep.er/2.jpg"


def test_clashes_are_numbered_and_never_clash_again() -> None:
    source = Named(["a.jpg", "a.png", "a-2.png", "a.gif", "b.c.jpg", "b_c.jpg"])
    assert members(source) == ["a.jpg", "a-3.png", "a-2.png", "a-4.gif", "b_c.jpg", "b_c-2.jpg"]


def test_shards_of_tar_files_lose_their_name() -> None:
    source = Named(["train-0.tar/cat/1.jpg", "train-1.tar/cat/1.jpg"], [0, 0], ["cat"])
    assert members(source) == ["cat/1.jpg", "cat/1-2.jpg"]
    folder = Named(["odd.tar/1.jpg"], [0], ["odd.tar"])
    assert members(folder) == ["odd.tar/1.jpg"]


def test_a_class_that_no_folder_says_gets_a_file_or_a_folder() -> None:
    numbers = Members(Named(["s.tar/01.jpg", "s.tar/02.jpg"], [1, -1], ["7", "12"]))
    assert (numbers.picture(0), numbers.class_file(0)) == ("01.jpg", ("01.cls", b"12"))
    assert numbers.class_file(1) is None
    words = Members(Named(["01.jpg"], [0], ["cat"]))
    assert (words.picture(0), words.class_file(0)) == ("cat/01.jpg", None)


def test_the_fingerprint_sees_names_labels_and_order() -> None:
    sources = [
        Named(["a/1.jpg", "b/2.jpg"], [0, 1], ["a", "b"]),
        Named(["a/1.jpg", "b/3.jpg"], [0, 1], ["a", "b"]),
        Named(["a/1.jpg", "b/2.jpg"], [0, 0], ["a", "b"]),
        Named(["b/2.jpg", "a/1.jpg"], [1, 0], ["a", "b"]),
    ]
    prints = [Members(source).fingerprint for source in sources]
    assert len(set(prints)) == 4
    assert Members(sources[0]).fingerprint == prints[0]
