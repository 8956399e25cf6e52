"""How many faults a run tries, and which."""


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="try thousands of faults, not hundreds")
    parser.addoption("--seed", type=int, default=0, help="of the faults; the same seed, the same")
