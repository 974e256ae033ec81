"""Forward and inverse kinematics of a robot arm with seven joints, for many poses at once."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POSES, STEPS, POINTS = 12_000, 30, 60
# Denavit-Hartenberg parameters of each joint: twist, length and offset of its link
TWISTS = np.pi / 2 * np.array([-1, 1, 1, -1, -1, 1, 0])
LENGTHS = np.array([0, 0, 0.08, -0.08, 0, 0.09, 0])
OFFSETS = np.array([0.33, 0, 0.32, 0, 0.38, 0, 0.11])


def link_transforms(angles: Array, joint: int) -> Array:
    """Transforms across one joint, of shape (poses, 4, 4), by its angles."""
    cos, sin = np.cos(angles), np.sin(angles)
    cos_twist, sin_twist = np.cos(TWISTS[joint]), np.sin(TWISTS[joint])
    transform = np.zeros((len(angles), 4, 4))
    transform[:, 0, 0], transform[:, 0, 1] = cos, -sin * cos_twist
    transform[:, 0, 2], transform[:, 0, 3] = sin * sin_twist, LENGTHS[joint] * cos
    transform[:, 1, 0], transform[:, 1, 1] = sin, cos * cos_twist
    transform[:, 1, 2], transform[:, 1, 3] = -cos * sin_twist, LENGTHS[joint] * sin
    transform[:, 2, 1], transform[:, 2, 2] = sin_twist, cos_twist
    transform[:, 2, 3], transform[:, 3, 3] = OFFSETS[joint], 1
    return transform


def forward(angles: Array) -> tuple[Array, Array]:
    """Transforms of the hand (poses, 4, 4), and Jacobians of its position (poses, 3, joints)."""
    frames = [np.broadcast_to(np.eye(4), (len(angles), 4, 4))]
    for joint in range(angles.shape[1]):
        frames.append(frames[-1] @ link_transforms(angles[:, joint], joint))
    hand = frames[-1]
    axes = np.stack([frame[:, :3, 2] for frame in frames[:-1]], axis=-1)
    levers = np.stack([hand[:, :3, 3] - frame[:, :3, 3] for frame in frames[:-1]], axis=-1)
    return hand, np.cross(axes, levers, axis=1)


rng = np.random.default_rng(9)
goal = forward(rng.uniform(-1.2, 1.2, (POSES, 7)))[0][:, :3, 3]
angles = rng.uniform(-1.2, 1.2, (POSES, 7))
damping = 0.01 * np.eye(3)
for _ in range(STEPS):  # damped least squares
    hand, jacobian = forward(angles)
    error = (goal - hand[:, :3, 3])[:, :, np.newaxis]
    step = jacobian.mT @ np.linalg.solve(jacobian @ jacobian.mT + damping, error)
    angles = angles + step[:, :, 0]
hand = forward(angles)[0]
distance = np.linalg.norm(goal - hand[:, :3, 3], axis=1)

# the points of a tool in the hand, in the coordinates of the room, and those of a camera
tool = rng.uniform(-0.1, 0.1, (POINTS, 3))
points = np.einsum("nij,pj->npi", hand[:, :3, :3], tool) + hand[:, np.newaxis, :3, 3]
camera = np.linalg.qr(rng.standard_normal((3, 3)))[0]
seen = points @ camera.T + np.array([0, 0, 3])
pixels = 500 * seen[:, :, :2] / seen[:, :, 2:]
print(f"reached {np.mean(distance < 1e-2):.4f} of the goals, spread {points.std():.5f}", end=", ")
print(f"mean distance from the middle of the image {np.linalg.norm(pixels, axis=-1).mean():.4f}")
