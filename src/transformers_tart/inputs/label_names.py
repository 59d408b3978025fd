"""One source of label names: `config.id2label`, for answers, saving and loading."""

from dataclasses import replace

from transformers_tart.checks.label_names import are_usual, config_names, set_config_names, usual_names
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.inputs.examples import Examples, RawExamples, parse_examples
from transformers_tart.support import SupportSet


class LabelNamesMixin:
    """Keeps the names of the classes: those that a user gave by `config.id2label`, else those of the examples."""

    config: TartConfig
    support: SupportSet | None
    # the names that came from examples, and give way to those of the next
    _names_of_examples: tuple[str, ...] | None = None

    @property
    def chosen_names(self) -> tuple[str, ...] | None:
        """The names that a user gave the classes, `None` where they are those of the examples or of transformers."""
        names = config_names(self.config)
        return None if are_usual(names) or names == self._names_of_examples else names

    def names_for(self, support: SupportSet) -> tuple[str, ...]:
        """The names of the classes of a support set: of the stored one those of the config.

        Raises:
            ValueError: When the config has not as many.
        """
        if support is not self.support:
            return support.label_names
        names = config_names(self.config)
        _check_count(names, support)
        return names

    def named_support(self) -> SupportSet | None:
        """The stored support set, its classes named as in the config."""
        return None if self.support is None else replace(self.support, label_names=self.names_for(self.support))

    def _parse(self, examples: RawExamples) -> Examples:
        """Examples whose labels must be those that a user named."""
        return parse_examples(examples, self.config.modality, self.chosen_names)

    def _parse_apart(self, examples: RawExamples) -> Examples:
        """Examples of a call, whose own labels win."""
        return parse_examples(examples, self.config.modality)

    def _name_classes(self, support: SupportSet | None) -> None:
        """Make the config name the classes of a support set that is about to be stored, or of none."""
        names = self.chosen_names
        if names is None and support is not None:
            self._names_of_examples = support.label_names
            set_config_names(self.config, support.label_names)
        elif names is None:
            set_config_names(self.config, usual_names(len(config_names(self.config))))
        elif support is not None:
            _check_count(names, support)
            _check_order(names, support)
            set_config_names(self.config, names)


def _check_count(names: tuple[str, ...], support: SupportSet) -> None:
    if len(names) != support.num_labels:
        raise ValueError(
            f"config.id2label has {len(names)} names, the support set has {support.num_labels} classes; set "
            "config.id2label to a name for each class."
        )


def _check_order(names: tuple[str, ...], support: SupportSet) -> None:
    if names != support.label_names and set(names) & set(support.label_names):
        same = [name for name, own in zip(names, support.label_names, strict=True) if name == own]
        if len(same) < len(set(names) & set(support.label_names)):
            raise ValueError(
                "config.id2label has the names of the support set in another order; encode the examples again with "
                "this model, or mend config.id2label."
            )


__all__ = ["LabelNamesMixin"]
