"""The paper's findings, put to the test: a protocol fixed beforehand, its runs, their verdicts."""
