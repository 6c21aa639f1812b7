"""What every search space must do."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter, count
from espalier.nas.space import SearchSpace
from espalier.testing.errors import user_error


class SpaceContract:
    """The contract of a search space. A subclass overrides the fixture `space`."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space to test, small enough to build in well under a second."""
        raise NotImplementedError

    @pytest.fixture
    def architectures(self, space: SearchSpace) -> list[Architecture]:
        """Eight architectures of the space, drawn at random."""
        generator = torch.Generator().manual_seed(1)
        return [space.sample(generator) for _ in range(8)]

    @pytest.mark.parametrize("training", [True, False])
    def test_built_with_the_same_weights_it_computes_what_the_supernet_does(
        self, space: SearchSpace, architectures: list[Architecture], training: bool
    ) -> None:
        space.train(training)
        for architecture in architectures:
            network = space.build(architecture, weights="inherited")
            # A slice of a shared weight and a copy of it may be summed in another order.
            torch.testing.assert_close(network(images(space)), space(images(space), space.gates(architecture)))

    def test_a_built_network_is_plain_torch(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        network = space.build(architectures[0])
        assert isinstance(network, fx.GraphModule)
        for node in network.graph.nodes:
            if node.op == "call_module":
                assert type(network.get_submodule(node.target)).__module__.startswith("torch.nn.")
        for module in network.modules():
            assert type(module).__module__.startswith(("torch.nn.", "torch.fx."))

    def test_a_built_network_shares_nothing_with_the_supernet(
        self, space: SearchSpace, architectures: list[Architecture]
    ) -> None:
        before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
        network = space.build(architectures[0], weights="inherited").train()
        network(images(space)).sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1)
        assert all(torch.equal(tensor, before[name]) for name, tensor in space.state_dict().items())
        assert all(parameter.grad is None for parameter in space.parameters())

    def test_fresh_weights_come_from_the_global_generator(
        self, space: SearchSpace, architectures: list[Architecture]
    ) -> None:
        def fresh(seed: int) -> torch.Tensor:
            torch.manual_seed(seed)
            return nn.utils.parameters_to_vector(space.build(architectures[0]).parameters())

        assert torch.equal(fresh(0), fresh(0))
        assert not torch.equal(fresh(0), fresh(1))

    def test_the_notation_goes_out_and_in(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        for architecture in architectures:
            assert space.parse(space.format(architecture)) == architecture

    def test_sampling_is_uniform_and_reproducible(self, space: SearchSpace) -> None:
        def draws(seed: int) -> list[str]:
            generator = torch.Generator().manual_seed(seed)
            return [space.sample(generator).id for _ in range(20)]

        assert draws(0) == draws(0)
        assert draws(0) != draws(1)
        generator = torch.Generator().manual_seed(3)
        samples = [space.sample(generator) for _ in range(600)]
        for name, choice in space.choices().items():
            for option in choice.options:
                share = sum(sample[name] == option for sample in samples) / len(samples)
                assert abs(share - 1 / len(choice.options)) < 0.08

    def test_mutation_changes_one_choice(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        generator = torch.Generator().manual_seed(4)
        for architecture in architectures:
            mutant = space.check(space.mutate(architecture, generator))
            assert sum(mutant[name] != architecture[name] for name in architecture) == 1

    def test_cost_is_that_of_the_built_network(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        counter = CostCounter(space)
        for architecture in architectures[:4]:
            network = space.build(architecture)
            assert counter(architecture) == count(network, space.input_shape)
            assert counter(architecture).params == sum(p.numel() for p in network.parameters())

    def test_the_diagram_names_real_options(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        edges = space.diagram(architectures[0])
        labels = {str(option) for option in architectures[0].values()}
        assert {label for _, _, label in edges if label} <= labels
        assert {"input", "output"} <= {node for edge in edges for node in edge[:2]}

    def test_what_is_not_in_the_space_is_refused(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        name = next(iter(architectures[0]))
        rest = {key: option for key, option in architectures[0].items() if key != name}
        for wrong, key, code in (
            ({**rest, name: "nonsense"}, name, "unknown"),
            (rest, name, "missing"),
            ({**rest, name: architectures[0][name], "extra": 1}, "extra", "unknown"),
        ):
            with user_error(f"architecture.{key}", code):  # type: ignore[arg-type]
                space.build(Architecture(wrong))


def images(space: SearchSpace, count: int = 3) -> torch.Tensor:
    """A batch of random images that the space takes."""
    return torch.randn(count, *space.input_shape, generator=torch.Generator().manual_seed(2))
