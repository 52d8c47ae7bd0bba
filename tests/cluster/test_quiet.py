"""Converged means quiet."""

from harness.base import eventually


def test_converged_and_quiet_for_a_hundred_reconciles(stack, team):
    team.serve()
    team.model_condition("Reconciling", "False")
    team.pool_condition("Reconciling", "False")

    def seen():
        return stack.writes(), stack.aws.mark(), stack.reconciles()

    def quiet(count, seconds):
        """What was written in so many reconciles, which come by themselves: AWS is read once a second."""
        writes, calls, start = seen()
        eventually(lambda: stack.reconciles() >= start + count, f"{count} reconciles", seconds)
        return stack.writes()[len(writes) :], stack.aws.mutations(calls)

    # The last transitions, a status or an event, may still be on their way.
    eventually(lambda: quiet(10, 60) == ([], []), "ten reconciles without a write", 60)
    assert quiet(100, 180) == ([], [])
