"""The greeting: what a member is given when it joins, what it missed or everything."""

from app.instances import protocol
from app.instances.draft import State
from app.instances.member import Member
from app.instances.resume import Missed, retell
from app.instances.snapshot import Snapshots


def greet(member: Member, missed: Missed, instance_id: str, epoch: str, state: State, snapshots: Snapshots) -> None:
    caller = member.caller
    permission = caller.level.permission
    member.socket.write(protocol.auth_success(instance_id, caller.public_id, permission, state.seq, epoch))
    if missed.lines is not None:
        member.outbox.send_all(payload for line in missed.lines if (payload := retell(line, member)))
    else:
        member.socket.write_sliced(snapshots.take(state).slices(member.wants, missed.reason))
