import numpy as np
import pytest
from scipy.stats import norm

from pneumonia.metrics import Ranking, auroc, mean
from pneumonia.uncertainty import (
    auroc_difference_error,
    bootstrap,
    bootstrap_p,
    percentile_interval,
    resample_people,
)


def clustered(rng, people=60, spread=1.0):
    """Scores of people with 1 to 6 images each, alike within a person."""
    images = rng.integers(1, 7, people)
    person = np.repeat(np.arange(people), images)
    target = rng.random(people)[person] < 0.4
    score = rng.normal(size=len(person)) + target + spread * rng.normal(size=people)[person]
    return score, target, person


def test_resample_people_every_row_sums_to_the_people_and_the_seed_decides():
    counts = resample_people(7, 50, seed=1)
    assert counts.sum(1).tolist() == [7] * 50
    assert (counts == resample_people(7, 50, seed=1)).all()
    assert (counts != resample_people(7, 50, seed=2)).any()


def test_bootstrap_equals_drawing_people_one_by_one():
    score, _, person = clustered(np.random.default_rng(0), people=20)
    counts = resample_people(20, 30, seed=0)
    samples = bootstrap(lambda weight: {"mean": mean(score, weight)}, person, counts)["mean"]
    for row, sample in zip(counts, samples, strict=True):
        drawn = np.concatenate([np.repeat(score[person == p], row[p]) for p in range(20)])
        assert sample == pytest.approx(drawn.mean())


def test_bootstrap_blocks_make_no_difference(monkeypatch):
    score, target, person = clustered(np.random.default_rng(1))
    counts = resample_people(60, 40, seed=0)

    def figures(weight):
        return {"auroc": auroc(score, target, weight)}

    whole = bootstrap(figures, person, counts)["auroc"]
    monkeypatch.setattr("pneumonia.uncertainty._BLOCK", len(person) * 3)
    assert bootstrap(figures, person, counts)["auroc"] == pytest.approx(whole, abs=0)


def test_bootstrap_without_resamples_is_empty():
    empty = resample_people(3, 0, seed=0)
    assert len(bootstrap(lambda weight: {"n": weight.sum(1)}, np.arange(3), empty)["n"]) == 0


def test_percentile_interval_often_undefined_is_withheld():
    samples = np.linspace(0, 1, 1000)
    samples[:10] = np.nan
    assert percentile_interval(samples) is not None
    samples[:11] = np.nan
    assert percentile_interval(samples) is None
    assert percentile_interval(np.zeros(0)) is None


def test_bootstrap_p_is_two_sided_and_never_zero():
    assert bootstrap_p(np.ones(999)) == pytest.approx(2 / 1000)
    assert bootstrap_p(-np.ones(999)) == pytest.approx(2 / 1000)
    assert bootstrap_p(np.r_[np.ones(500), -np.ones(500)]) == 1
    assert bootstrap_p(np.full(10, np.nan)) is None


def test_auroc_error_with_one_image_a_person_is_delongs():
    rng = np.random.default_rng(0)
    target = rng.random(80) < 0.4
    a, b = rng.normal(size=(2, 80)) + target
    # DeLong, DeLong and Clarke-Pearson 1988, from its definition
    psi = [(s[target][:, None] > s[~target][None, :]).astype(float) for s in (a, b)]
    of_positives = np.array([kernel.mean(1) for kernel in psi])
    of_negatives = np.array([kernel.mean(0) for kernel in psi])
    covariance = np.cov(of_positives) / target.sum() + np.cov(of_negatives) / (~target).sum()
    contrast = np.array([1.0, -1.0])
    error = auroc_difference_error(a, b, target, np.arange(80))
    assert error == pytest.approx(np.sqrt(contrast @ covariance @ contrast), rel=1e-12)
    alone = auroc_difference_error(a, 0.0, target, np.arange(80))
    assert alone == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-12)


def test_auroc_error_clustered_agrees_with_the_bootstrap_over_people():
    rng = np.random.default_rng(3)
    score, target, person = clustered(rng, people=400)
    other = score + rng.normal(size=len(score))
    counts = resample_people(400, 1000, seed=0)

    def difference(weight):
        return {"d": auroc(score, target, weight) - auroc(other, target, weight)}

    spread = bootstrap(difference, person, counts)["d"].std()
    assert auroc_difference_error(score, other, target, person) == pytest.approx(spread, rel=0.1)
    by_image = auroc_difference_error(score, 0.0, target, np.arange(len(person)))
    assert auroc_difference_error(score, 0.0, target, person) > 1.2 * by_image


def test_auroc_error_of_one_person_is_undefined():
    target = np.array([True, True, False])
    assert np.isnan(auroc_difference_error(np.arange(3.0), 0.0, target, np.array([0, 0, 1])))


def test_intervals_over_people_cover_and_intervals_over_images_do_not():
    rng = np.random.default_rng(0)
    inside = {"people": 0, "images": 0}
    for seed in range(300):
        images = rng.integers(1, 9, 60)
        person = np.repeat(np.arange(60), images)
        value = rng.normal(size=60)[person] + 0.5 * rng.normal(size=len(person))
        for name, unit in (("people", person), ("images", np.arange(len(person)))):
            counts = resample_people(int(unit.max()) + 1, 400, seed)
            samples = bootstrap(lambda w, v=value: {"mean": mean(v, w)}, unit, counts)["mean"]
            low, high = percentile_interval(samples)
            inside[name] += low <= 0 <= high
    assert 0.91 <= inside["people"] / 300 <= 0.98
    assert inside["images"] / 300 < 0.75


@pytest.mark.slow
def test_intervals_of_an_auroc_cover_in_1000_data_sets_and_those_over_images_do_not():
    """80 people with 1 to 8 images each: a person's images share illness and, in part, score."""
    skill, rng = 1.2, np.random.default_rng(0)
    truth = norm.cdf(skill / 2)  # of images of two people, whose scores scatter by sqrt(2) each
    inside = {"people": 0, "images": 0}
    for seed in range(1000):
        person = np.repeat(np.arange(80), rng.integers(1, 9, 80))
        target = (rng.random(80) < 0.4)[person] ^ (rng.random(len(person)) < 0.1)
        score = skill * target + rng.normal(size=80)[person] + rng.normal(size=len(person))
        ranking = Ranking(score, target)
        for name, unit in (("people", person), ("images", np.arange(len(person)))):
            counts = resample_people(int(unit.max()) + 1, 400, seed)
            samples = bootstrap(lambda w, r=ranking: {"auroc": r.auroc(w)}, unit, counts)["auroc"]
            low, high = percentile_interval(samples)
            inside[name] += low <= truth <= high
    assert 930 <= inside["people"] <= 970
    assert inside["images"] < 850
