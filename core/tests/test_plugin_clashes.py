"""Two plugins that want to serve the same: both are named, and what only one of them serves keeps working."""

import pytest
from installed_plugins import ACME, GOOD, found, installing

from mscvt.errors import MscvtError
from mscvt.plugins.registry import load_registry


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with a plugin of this source on `sys.path`."""
    with installing(tmp_path, monkeypatch) as installed:
        yield installed


def test_model_type_claimed_twice_is_refused_and_all_claimants_named(install):
    install("mscvt-acme", ACME.replace("    return [", '    return [ModelType("own", ("own",)), '))
    install("mscvt-acme-fork", ACME, version="3.0")
    registry = load_registry()
    assert registry.contested == {"acme": ("mscvt-acme 1.2", "mscvt-acme-fork 3.0")}
    for distribution in ("mscvt-acme", "mscvt-acme-fork"):
        (plugin,) = found(registry, distribution)
        assert plugin.error == (
            "model type claimed by more than one distribution: 'acme' (mscvt-acme 1.2, mscvt-acme-fork 3.0)"
        )
    with pytest.raises(MscvtError, match=r"claimed by more than one distribution: mscvt-acme 1.2, mscvt-acme-fork 3.0"):
        registry.family("acme")
    assert registry.family("own").plugin.distribution == "mscvt-acme"


def test_config_that_two_model_types_claim_asks_for_a_choice(install):
    install("mscvt-acme", ACME)
    install("mscvt-zenith", GOOD.format(name="zenith").replace("zenith_config", "acme_config"))
    registry = load_registry()
    with pytest.raises(MscvtError) as caught:
        registry.recognise({"model_type": "acme_config"})
    assert caught.value.message == (
        "config.json says model_type 'acme_config', which can be acme (mscvt-acme 1.2), zenith (mscvt-zenith 1.2)"
    )
    assert caught.value.hint == "Choose one with --model-type-hf."
    for distribution in ("mscvt-acme", "mscvt-zenith"):
        (plugin,) = found(registry, distribution)
        assert plugin.error is None  # both work, and have their recipes
        assert plugin.notes == (
            "a config.json of model_type 'acme_config' can be acme (mscvt-acme 1.2), zenith (mscvt-zenith 1.2): "
            "--model-type-hf chooses",
        )
    assert {"acme", "zenith"} <= registry.families.keys()


def test_config_that_a_plugin_tells_apart_from_anothers_is_no_clash(install):
    install("mscvt-acme", ACME)
    told = GOOD.format(name="zenith").replace('("zenith_config",)', '("acme_config",), matches=lambda config: False')
    install("mscvt-zenith", told)
    registry = load_registry()
    assert [found(registry, name)[0].notes for name in ("mscvt-acme", "mscvt-zenith")] == [(), ()]
    assert registry.recognise({"model_type": "acme_config"}).model_type.name == "acme"


def test_config_is_of_the_type_that_says_so_before_the_plugins_other_one(install):
    more = 'ModelType("tied", ("acme_config",), matches=lambda config: config.get("tied")), ModelType('
    install("mscvt-acme", ACME.replace("ModelType(", more, 1))
    registry = load_registry()
    for tied, name in ((True, "tied"), (False, "acme")):
        assert registry.recognise({"model_type": "acme_config", "tied": tied}).model_type.name == name
