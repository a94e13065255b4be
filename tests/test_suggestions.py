"""What is left of a message when the nest of types around it is taken away."""

import pytest

from seqrec.suggestions import Complaint, class_paths, sentence

NESTED = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'Task'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'seqrec.training.task.NextItemTask':
        Parser key "backbone":
          {}
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='backbone.norm', val='pree')"""


def test_the_line_of_a_package_that_was_compiled_elsewhere_is_not_named():
    with pytest.raises(ValueError) as raised:
        exec(compile("raise ValueError('It is broken.')", "arrow/error.pxi", "exec"))
    raised.value.__traceback__ = raised.value.__traceback__.tb_next
    assert sentence(raised.value, ["embed items"]) == "It is broken."


def test_the_innermost_sentence_is_found_with_its_key():
    found = Complaint.inside(NESTED.format("dim is 3. Give 4."))
    assert (found.key, found.words, found.nested) == ("model.backbone", "dim is 3. Give 4.", "backbone.norm")


def test_the_value_that_was_found_is_kept():
    found = Complaint.inside(NESTED.format("Expected a <class 'int'>. Got value: pree. Got value: Namespace(a='b')"))
    assert (found.words, found.value) == ("Expected a <class 'int'>", "pree")


@pytest.mark.parametrize("plain", ["a.csv has no column 'user'.", "It's: - a list\n- of two", "Type a number."])
def test_a_message_of_our_own_is_left_as_it_is(plain):
    assert sentence(ValueError(plain), ["fit"]) == " ".join(plain.split())


def test_an_error_without_words_is_named():
    assert sentence(ValueError(), ["fit"]) == "ValueError"


def test_the_classes_of_a_kind_are_all_below_it():
    found = class_paths("Backbone")
    assert "seqrec.backbones.sasrec.SASRec" in found
    assert not any(".base." in path or "scorers" in path for path in found)
