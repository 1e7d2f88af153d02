"""What the notebooks say in words holds in the tables that they show: a sentence that no longer does has to go."""

import re

from tests.notebooks.reading import shown_tables, stored, tables, texts, value
from tests.notebooks.test_figures import by_method

BOTH = ("x4", "x16")


def is_best(cell):
    return cell.endswith("*")


def test_the_table():
    table, differences = shown_tables("01")
    rows = by_method(table)

    def score(resolution, method, title):
        return value(rows[resolution, method][title])

    assert score("x16", "direct", "repetition ↓") > 2 * score("x4", "direct", "repetition ↓") > 1
    assert abs(score("x4", "attention_scaling", "repetition ↓") - score("x4", "direct", "repetition ↓")) < 0.2
    for method in ("multidiffusion", "syncdiffusion"):
        assert score("x4", method, "repetition ↓") > score("x4", "direct", "repetition ↓")
    methods = {(size, name): row for (size, name), row in rows.items() if size in BOTH and not name.startswith("real")}
    best_in_both = {key for key, row in methods.items() if is_best(row["KID_r ↓"]) and is_best(row["pKID_r ↓"])}
    assert best_in_both == {(size, "scalecrafter") for size in BOTH}
    for size in BOTH:
        for method in ("scalecrafter", "upscale"):
            assert score(size, method, "repetition ↓") < 0.3
        enlarged = score(size, "real_enlarge", "pKID_r ↓")
        assert abs(score(size, "upscale", "pKID_r ↓") / enlarged - 1) < 0.25
        for control in ("real_enlarge", "real_grid"):
            assert abs(score(size, control, "KID_r ↓") - score(size, "real", "KID_r ↓")) < 0.01
            assert score(size, control, "pKID_r ↓") > score(size, "real", "pKID_r ↓") + 1
        assert score(size, "scalecrafter", "U-Net evals") == score(size, "direct", "U-Net evals")
    for row in differences:
        errors = value(row["in standard errors"])
        if row["score"] != "pKID_r ↓":
            assert errors < -3
        else:
            here = {"upscale": (3, 40), "scalecrafter": (-2, 2)}
            there = {"upscale": (-2, 40), "scalecrafter": (-2, -1.8)}  # "nearly two"
            low, high = (here if row["resolution"] == "x4" else there)[row["method"]]
            assert low < errors < high


def sections():
    """Contrasts and scores of each ablation, by its name."""
    found, name = {}, None
    for text in texts(stored("02")):
        if match := re.match(r"### ablate_(\w+)", text):
            name = match[1]
        elif text.startswith("| ablation"):
            break
        else:
            found.setdefault(name, []).extend(tables(text))
    return found


def test_the_ablations():
    contrasts, scores = sections()["dilation"]
    copies = {(row["resolution"].split()[0], row["variant"]): value(row["repetition ↓"]) for row in scores}
    assert copies["x16", "radius 2"] > 1 > 0.5 > copies["x16", "radius 4"]
    assert min(copies["x16", "radius 1"], copies["x16", "radius 8"]) > 10
    assert copies["x4", "radius 4"] > copies["x4", "radius 1"] > 1 > 0.5 > copies["x4", "radius 2"]
    smaller = [row for row in contrasts if row["difference"].startswith("radius 1 ")]
    assert [row["repetition: the claim"] for row in smaller] == ["supports"] * 3
    assert sum(row["KID_r: the claim"].startswith("no power") for row in contrasts) > len(contrasts) / 2
    assert copies["x16", "radius 5"] < 0.5 < 1 < copies["x16", "radius 6"]
    assert sum(value(row["KID_r"]) > 0 for row in contrasts) > 0.8 * len(contrasts)
    detail = {(row["resolution"], row["difference"]): row["pKID_r: the claim"] for row in contrasts}
    too_far = ("radius 4 minus radius 2", "radius 4 minus radius 2.5", "radius 8 minus radius 4")
    verdicts = [detail[key] for key in zip(("x4", "x6_25", "x16"), too_far, strict=True)]
    assert [verdict == "supports" for verdict in verdicts] == [True, False, False]
    assert all(value(row["pKID_r"]) > 0 for row in contrasts if row["difference"] in too_far)
    contrasts, _ = sections()["dispersion"]
    assert all(cell.startswith("no power") for row in contrasts for title, cell in row.items() if "claim" in title)
    contrasts, scores = sections()["noise_damping"]
    assert any(row["pKID_r: the claim"] == "contradicts" for row in contrasts)
    copies = [value(row["repetition ↓"]) for row in scores]
    assert max(copies[:2]) < copies[2] < copies[3]  # none, 10, 20 and 30 steps


def test_repetition():
    counted, summary = shown_tables("03")
    copies = {row["method"]: row for row in counted}
    objects = {row["objects"]: row for row in summary}
    direct = [value(copies["direct"][size]) for size in ("x1", *BOTH)]
    assert direct == sorted(direct)
    for size in BOTH:
        assert value(copies["multidiffusion"][size]) > value(copies["direct"][size])
        for method in ("upscale", "scalecrafter", "real"):
            assert value(copies[method][size]) < 0.3
    assert value(objects["25%"]["direct"]) > 3
    assert value(objects["max"]["scalecrafter"]) < value(objects["min"]["direct"])


def test_your_own_method():
    table, objects = shown_tables("04")
    rows = {row["method"]: row for row in table}
    copies = {method: value(row["repetition ↓"]) for method, row in rows.items()}
    assert copies["scalecrafter"] < 0.5 < 1 < min(copies["direct"], copies["plain_dilation"])
    assert abs(copies["plain_dilation"] - copies["direct"]) < 0.5
    assert is_best(rows["scalecrafter"]["repetition ↓"])
    assert not is_best(rows["direct"]["repetition ↓"])
    assert all(is_best(row["KID_r ↓"]) for row in rows.values())
    assert len(objects) == 8


def test_inside_the_unet():
    radii, similarity = shown_tables("05")
    growth, restored = [], []

    def share(row, title):
        return float(re.search(r"([\d.]+) of the side", row[title])[1])

    for row in radii:
        trained, four, sixteen = (share(row, title) for title in list(row)[2:])
        assert 0.22 < trained < 0.33
        if row["method"] == "direct":
            growth.append(value(row["16 times the area"]) / value(row["4 times the area"]))
            assert 0.2 <= four <= 0.25
            assert 0.45 < sixteen / trained < 0.55
        else:
            assert -0.02 < sixteen - trained < 0.1
            restored.append(four - trained)
    assert [round(100 * each - 100) for each in sorted(growth)] == [18, 36]
    assert restored[0] < -0.05
    assert restored[1] >= 0
    for row in similarity:
        assert value(row["scalecrafter"]) > value(row["direct"]) + 0.3
    assert min(similarity, key=lambda row: value(row["direct"]))["layer"] == "mid_block"
