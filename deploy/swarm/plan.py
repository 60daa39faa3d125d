"""The plan that `swarm up --dry-run` shows without flyctl or an account."""

from collections.abc import Iterator

from deploy.swarm import status
from deploy.swarm.place import Deployed
from deploy.swarm.wish import Wish, wanted


def without_account(name: str, state: Deployed, wish: Wish) -> Iterator[str]:
    """The plan, as far as the laptop knows. Raises `UpError` for an impossible request."""
    state = wanted(state, wish)
    yield "no flyctl, or not logged in: this is the plan if nothing exists yet:"
    org = f" --org {wish.org}" if wish.org else ""
    yield f"  fly apps create {name}{org} --yes"
    yield (
        f"  fly volumes create workspace --app {name} --region {state.region} "
        f"--size {state.volume_gb} --yes --vm-size {state.size} "
        f"--vm-memory {state.memory_gb * 1024} --snapshot-retention {state.retention}"
    )
    if not state.private:
        kind = "allocate-v6" if wish.ipv6_only else "allocate-v4"
        yield f"  fly ips {kind} --app {name}" + ("" if wish.ipv6_only else " --yes   # $2 a month")
    yield f"  fly secrets import --app {name} --stage   # your key, and --env-file"
    image = f" --image {state.image}" if state.image else "   # builds the image"
    yield f"  fly deploy --app {name}{image}"
    yield f"  {status.about_size(state)}"
