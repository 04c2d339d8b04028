"""Which layer goes where, worked out by laying slots in a row and cutting it; apart from mscvt's code."""

from __future__ import annotations

from random_models import Case


def kept_layers(case: Case) -> list[int]:
    """The numbers in the source of the decoder layers that are kept."""
    count = case.config["num_hidden_layers"]
    first = case.options.get("first_k_dense_replace")
    numbers = list(range(count))
    if first is not None:
        numbers = numbers[:first] + numbers[case.config["first_k_dense_replace"] :]
    return numbers[: case.options.get("num_layers", count)]


def chunks(case: Case) -> tuple[list[tuple[int, str, list[int]]], tuple[int, str]]:
    """(stage, part, slots) of every chunk, and which chunk holds the end of the model."""
    pp, options = case.pp, case.options
    slots = list(range(len(kept_layers(case)) + len(options.get("noop_layers", ()))))
    if "num_layer_list" in options:
        rest, found = slots, []
        for stage, count in enumerate(options["num_layer_list"]):
            found.append((stage, "model", rest[:count]))
            rest = rest[count:]
        return found, (pp - 1, "model")
    each = len(slots) // pp
    if virtual := options.get("num_layers_per_virtual_pipeline_stage"):
        found = []
        for number, start in enumerate(range(0, len(slots), virtual)):
            chunk, stage = divmod(number, pp)
            found.append((stage, f"model{chunk}", slots[start : start + virtual]))
        return found, (pp - 1, f"model{each // virtual - 1}")
    if options.get("schedules_method") == "dualpipev":
        half = each // 2
        runs = [slots[start : start + half] for start in range(0, len(slots), half)]
        return [
            *((stage, "model0", runs[stage]) for stage in range(pp)),
            *((stage, "model1", runs[2 * pp - 1 - stage]) for stage in range(pp)),
        ], (0, "model1")
    return [(stage, "model", slots[stage * each : (stage + 1) * each]) for stage in range(pp)], (pp - 1, "model")


def ranks(case: Case) -> list[tuple[int, int]]:
    """(TP rank, EP rank) of the files of one stage."""
    tp, ep = case.tp, case.ep
    if case.options.get("expert_tensor_parallel_size", tp) == 1 and tp > 1 and not case.options.get("moe_tp_extend_ep"):
        if tp % ep == 0:
            return [(t, t % ep) for t in range(tp)]
        return [(e % tp, e) for e in range(ep)]
    return [(t, e) for t in range(tp) for e in range(ep)]
