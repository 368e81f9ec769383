"""Processes that torchrun has started: how they start, speak, stop, fail and end."""


def test_a_command_of_one_process_is_run_by_the_first_rank_alone(launch):
    first, second = (child.wait() for child in launch(2, "list", "losses"))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.startswith("name")
    said = "lrtool: list runs in one process: rank 0 does it, the others end\n"
    assert first.stderr == said
    assert (second.stdout, second.stderr) == ("", "")
