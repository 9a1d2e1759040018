# SPDX-License-Identifier: MIT
# %% [markdown]
# # 5. From a formula to a CUDA kernel
#
# So far every function was there already. Now we write one ourselves, all the way down: from a
# formula on paper to a program for a graphics card (a GPU), forward and backward, with a check of
# its gradient, and with a look at what it does to memory.
#
# You need no GPU. tilegrad has a **simulator** that runs CUDA programs on any computer; it is slow,
# but it sees everything. What you need is a C++ compiler (`g++` or `clang++`) and to have seen a
# little C before.

# %%
import matplotlib.pyplot as plt
import numpy as np

import tilegrad as tg

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6b6b6b"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})
np.set_printoptions(precision=6, suppress=True)

# %% [markdown]
# ## The formula
#
# The activation function GELU is popular but dear: it needs the error function. There is a quick
# stand-in, a sigmoid that is multiplied by its own input (Hendrycks and Gimpel 2016):
#
# $$f(x) = x \, \sigma(\beta x), \qquad \beta = 1.702$$
#
# For the way back we need its slope. With $s = \sigma(\beta x)$, whose own slope is
# $\beta s (1 - s)$, the product rule gives
#
# $$f'(x) = s + \beta x \, s (1 - s)$$
#
# Both in NumPy, in double precision. This is the truth that the kernels have to meet:


# %%
def f(x, beta=1.702):
    return x / (1 + np.exp(-beta * x))


def slope(x, beta=1.702):
    s = 1 / (1 + np.exp(-beta * x))
    return s + beta * x * s * (1 - s)


x = np.linspace(-4, 4, 201)
figure, panel = plt.subplots(figsize=(6, 3.2), layout="constrained")
panel.plot(x, tg.gelu(x), color=GREY, linestyle="--", label="GELU")
panel.plot(x, f(x), color=BLUE, label="f, its quick stand-in")
panel.plot(x, slope(x), color=ORANGE, label="slope of f")
panel.set(xlabel="x", title="A formula, and its slope")
panel.legend(frameon=False)
plt.show()
print(f"f and GELU differ by at most {np.abs(f(x) - tg.gelu(x)).max():.3f}")

# %% [markdown]
# ## A kernel
#
# A GPU runs many thousands of **threads** at once, and all of them run the same function, the
# **kernel**. What differs is where they stand. Threads come in **blocks** of equal size, and the
# blocks of a launch are its **grid**. So a thread finds its number like this:
#
# `blockIdx.x * blockDim.x + threadIdx.x`: which block, times the size of a block, plus its place in
# the block.
#
# How shall they share the work? As people would: everyone takes a piece. Each thread takes eight
# neighbours of the array and goes through them. Below is that, in CUDA: C++ with a few more words.
# `__global__` says that a function is a kernel, `extern "C"` that it keeps its plain name, by which
# we shall call it.

# %%
FIRST = """
extern "C" __global__ void quick_gelu_kernel(float* y, const float* x, float beta, int n) {
  const int first = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
  for (int i = first; i < first + 8; ++i) {
    if (i < n) y[i] = x[i] / (1 + exp(-beta * x[i]));
  }
}
"""
first = tg.sim.compile(FIRST, name="first.cu")
print(first)

# %% [markdown]
# `tg.sim.compile` has handed the text to the C++ compiler and read off what the kernel takes. To
# run it, we put an array on the device "sim" and say how large the grid is: 1000 elements, 8 a
# thread, make 125 threads; a block of 128 will do. The three threads too many find `i < n` false.

# %%
BETA, N = 1.702, 1000
values = np.random.default_rng(0).normal(size=N).astype(np.float32)
x = tg.asarray(values, device="sim")
y = tg.empty(N, device="sim")
first.quick_gelu_kernel[1, 128](y, x, BETA, N)  # [grid, block](arguments)
print("kernel", y.numpy()[:4])
print("truth ", f(values.astype(float))[:4])
print(f"largest difference {np.abs(y.numpy() - f(values.astype(float))).max():.0e}")

# %% [markdown]
# Seven digits are all that float32 has. The kernel is right.
#
# ## What did it do to memory?
#
# Right is not yet good. A GPU computes so fast that most kernels wait for one thing only: memory.
# Two facts decide how long:
#
# - Threads run in groups of 32, called **warps**. When a warp loads, the 32 addresses of its
#   threads go to memory together, as one **request**.
# - Memory hands out whole **sectors** of 32 bytes: eight floats. 32 floats that lie side by side
#   are 4 sectors. Nothing can be less.
#
# The simulator can watch every access of a kernel, and count:

# %%
with tg.sim.trace() as seen_first:
    first.quick_gelu_kernel[1, 128](y, x, BETA, N)
print(seen_first)

# %% [markdown]
# The line that we wrote moves many times what it needs (column *ratio*), and in the worst request
# each of the 32 threads touched a sector of its own. Why? Look at what the threads of a warp do *at
# the same moment*. At first they want their first elements: numbers 0, 8, 16, 24 and so on. Eight
# elements are just one sector. So 32 sectors are fetched for 32 numbers, and seven eighths of each
# are thrown away. The next moment brings the second elements, and the same sectors once more.
#
# People who share work like to have a piece of their own. Threads of a warp do not: they should
# stand **side by side**. Thread 0 takes element 0, thread 1 element 1, and the whole row strides on
# together until the array is done. This is called *coalesced*.

# %%
SOURCE = """
extern "C" __global__ void quick_gelu_kernel(float* y, const float* x, float beta, int n) {
  const int threads = gridDim.x * blockDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {
    y[i] = x[i] / (1 + exp(-beta * x[i]));
  }
}

extern "C" __global__ void quick_gelu_backward_kernel(float* dx, const float* dy, const float* x,
                                                      float beta, int n) {
  const int threads = gridDim.x * blockDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {
    const float s = 1 / (1 + exp(-beta * x[i]));
    dx[i] = dy[i] * (s + beta * x[i] * s * (1 - s));
  }
}
"""
kernels = tg.sim.compile(SOURCE, name="quick_gelu.cu")
with tg.sim.trace() as seen:
    kernels.quick_gelu_kernel[1, 128](y, x, BETA, N)
print(seen)
print(f"largest difference {np.abs(y.numpy() - f(values.astype(float))).max():.0e}")


# %% [markdown]
# Ratio 1.00: every byte that is moved is used. Here is what the 32 threads of the first warp ask
# for in their first request. Each grey or white band is a sector.


# %%
def show_request(panel, elements, title):
    """Draw which element of the array each thread of a warp asks for."""
    for sector in range(0, 32, 2):
        panel.axvspan(8 * sector, 8 * sector + 8, color="0.93", linewidth=0)
    panel.plot(elements + 0.5, np.arange(32), ".", color=BLUE)
    sectors = np.unique(elements // 8).size
    panel.set(title=f"{title}: {sectors} sectors", xlabel="element of x", xlim=(0, 256))


figure, panels = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
show_request(panels[0], 8 * np.arange(32), "a piece for each thread")
show_request(panels[1], np.arange(32), "side by side")
panels[0].set_ylabel("thread")
plt.show()

# %% [markdown]
# ## Is the gradient right?
#
# The source above has a second kernel: the way back. It gets $dy$, the slope of the loss for each
# result, and multiplies it by $f'(x)$. We check it as on the [page about the chain
# rule](2_chain_rule.ipynb): move each input a little to both sides, and see what the result does.
#
# Such differences need double precision. So we compile the same text once more, with another word
# for the numbers; and wrap both in two functions as tilegrad has them.

# %%
in_double = tg.sim.compile(SOURCE.replace("float", "double"), name="quick_gelu.cu")
by_dtype = {"float32": kernels, "float64": in_double}


def quick_gelu(x):
    y = tg.empty(x.shape, dtype=x.dtype, device="sim")
    by_dtype[x.dtype_name].quick_gelu_kernel[4, 128](y, x, BETA, x.size)
    return y


def quick_gelu_backward(grad_output, x):
    dx = tg.empty(x.shape, dtype=x.dtype, device="sim")
    kernel = by_dtype[x.dtype_name].quick_gelu_backward_kernel
    kernel[4, 128](dx, grad_output, x, BETA, x.size)
    return dx


points = tg.asarray(np.linspace(-4, 4, 41), device="sim")
checked = tg.gradcheck(quick_gelu, points, backward=quick_gelu_backward)
print(checked)

# %% [markdown]
# ## Threads that work together
#
# Who says that 1.702 is the best $\beta$? It could be learned, like a weight. All elements share
# the one $\beta$, so its slope is a **sum** over all of them:
#
# $$\frac{\partial L}{\partial \beta} = \sum_i dy_i \; x_i^2 \; s_i (1 - s_i)$$
#
# A sum needs threads that talk to each other. Threads of one block have a small **shared memory**
# for that. Each puts its term there; then they add in pairs: 256 terms become 128 sums, these 64,
# and so on, until one is left. Every block writes its sum, and the few sums of the blocks we add in
# Python.


# %%
def sum_source(loop):
    return (
        """
extern "C" __global__ void beta_slope_kernel(float* sums, const float* dy, const float* x,
                                             float beta, int n) {
  __shared__ float part[256];  // one array for all threads of the block
  const int t = threadIdx.x;
  const int i = blockIdx.x * blockDim.x + t;
  const float s = i < n ? 1 / (1 + exp(-beta * x[i])) : 0;
  part[t] = i < n ? dy[i] * x[i] * x[i] * s * (1 - s) : 0;
"""
        + loop
        + """
  if (t == 0) sums[blockIdx.x] = part[0];
}
"""
    )


HASTY = """
  for (int step = 1; step < 256; step *= 2) {
    const int k = 2 * step * t;
    if (k < 256) part[k] += part[k + step];
  }
"""
hasty = tg.sim.compile(sum_source(HASTY), name="hasty.cu")
slopes = np.random.default_rng(1).normal(size=N).astype(np.float32)
dy = tg.asarray(slopes, device="sim")
sums = tg.empty(4, device="sim")
z, d = values.astype(float), slopes.astype(float)
s = 1 / (1 + np.exp(-BETA * z))
truth = np.sum(d * z**2 * s * (1 - s))


def beta_slope(module, schedule):
    """Launch the sum under a schedule of the simulator; return the result and the trace."""
    with tg.sim.trace(schedule) as seen:
        module.beta_slope_kernel[4, 256](sums, dy, x, BETA, N)
    return float(sums.numpy().sum()), seen


print(f"truth              {truth:.6f}")
hasty_results = {}
for schedule in ("forward", "reverse", "random:7"):
    hasty_results[schedule], seen_hasty = beta_slope(hasty, schedule)
    print(f"schedule {schedule:9} {hasty_results[schedule]:.6f}")

# %% [markdown]
# The same program, the same numbers, and different results! A *schedule* is the order in which the
# simulator runs the threads; a GPU has an order of its own, another one each time. Under "reverse"
# the result happens to be right, and whoever tested only that would never know. The trace knows,
# whatever the result was:

# %%
hasty_results["reverse"], seen_hasty = beta_slope(hasty, "reverse")
race = seen_hasty.races[0]
print(race)
print()
for access in (race.first, race.second):
    print(f"line {access.line}:", sum_source(HASTY).split("\n")[access.line - 1].strip())

# %% [markdown]
# A **race**: one thread writes, another reads the same place, and nothing says who comes first. A
# thread adds up what its neighbour may not have written yet. What is missing is a **barrier**,
# `__syncthreads()`: no thread of the block goes on before all have come to it.

# %%
PAIRS = """
  for (int step = 1; step < 256; step *= 2) {
    __syncthreads();
    const int k = 2 * step * t;
    if (k < 256) part[k] += part[k + step];
  }
"""
pairs = tg.sim.compile(sum_source(PAIRS), name="pairs.cu")
pairs_results = {}
for schedule in ("forward", "reverse", "random:7"):
    pairs_results[schedule], seen_pairs = beta_slope(pairs, schedule)
    found = f"{pairs_results[schedule]:.6f}, races: {len(seen_pairs.races)}"
    print(f"schedule {schedule:9} {found}")
print(f"truth              {truth:.6f}")

# %% [markdown]
# ## The same sum without a queue
#
# Shared memory has a rule of its own. It lies in 32 **banks**, and neighbouring floats lie in
# neighbouring banks. A bank serves one float at a time. Threads that want different floats of the
# same bank queue, and each turn is a **wavefront**. What does the trace say about our sum?


# %%
def cost_of(seen, space):
    """Return what all accesses to a memory cost, and the least that they could."""
    sites = [site for site in seen.sites if site.space == space]
    return sum(site.sectors for site in sites), sum(site.ideal for site in sites)


cost, least = cost_of(seen_pairs, "shared")
print(f"{cost} wavefronts, where {least} would do: {cost / least:.2f}x")

# %% [markdown]
# Adding neighbours is to blame. In the first round the threads take every second float, then every
# fourth, then every eighth: the longer the stride, the fewer banks are left. So again, let the
# threads stand side by side: add the upper half to the lower half, then the upper quarter to the
# lower quarter, and so on.

# %%
HALVES = """
  for (int half = 128; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) part[t] += part[t + half];
  }
"""
halves = tg.sim.compile(sum_source(HALVES), name="halves.cu")
halves_result, seen_halves = beta_slope(halves, "random:7")
halves_cost, halves_least = cost_of(seen_halves, "shared")
print(f"slope of beta {halves_result:.6f}, truth {truth:.6f}, races: {len(seen_halves.races)}")
print(f"{halves_cost} wavefronts, where {halves_least} would do: {halves_cost / halves_least:.2f}x")


# %% [markdown]
# Both repairs in one picture: how much the memory has to do, and how many times the least possible.

# %%
copies = {
    "a piece each": cost_of(seen_first, "global"),
    "side by side": cost_of(seen, "global"),
}
totals = {"pairs": cost_of(seen_pairs, "shared"), "halves": cost_of(seen_halves, "shared")}
figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for panel, title, versions in (
    (panels[0], "quick GELU: sectors", copies),
    (panels[1], "sum: wavefronts", totals),
):
    costs = [cost for cost, _ in versions.values()]
    bars = panel.bar(list(versions), costs, color=[ORANGE, GREEN], width=0.55)
    panel.bar_label(bars, [f"{cost}\n{cost / least:.2f}x" for cost, least in versions.values()])
    panel.set(title=title, ylim=(0, 1.25 * max(costs)))
plt.show()

# %% [markdown]
# ## One thread too far
#
# The other classic mistake: to forget `i < n`. Four blocks of 256 threads are 1024, but there are
# 1000 elements. On a GPU such an access often does no visible harm, until one day it does. Here it
# has a name and an address:

# %%
CARELESS = """
extern "C" __global__ void quick_gelu_kernel(float* y, const float* x, float beta) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i] / (1 + exp(-beta * x[i]));
}
"""
careless = tg.sim.compile(CARELESS, name="careless.cu")
try:
    with tg.sim.trace() as seen_careless:
        careless.quick_gelu_kernel[4, 256](y, x, BETA)
except RuntimeError:
    for each in seen_careless.out_of_bounds:
        print(each)

# %% [markdown]
# ## In a network
#
# A layer is a module with `forward` and `backward`; ours keeps its input for the way back. Then it
# goes into a network like any other, and `tg.gradcheck` checks all of it: the inputs' slopes and
# those of every weight.


# %%
class QuickGelu(tg.nn.Module):
    def forward(self, x):
        self.kept = x
        return quick_gelu(x)

    def backward(self, grad_output, input_grad=True):
        return quick_gelu_backward(grad_output, self.kept)


tg.manual_seed(0)
model = tg.nn.Sequential(
    tg.nn.Linear(2, 8, dtype="float64"), QuickGelu(), tg.nn.Linear(8, 2, dtype="float64")
).to("sim")
corners = tg.asarray(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float), device="sim")
network_checked = tg.gradcheck(model, corners)
print(network_checked)

# %%
xor = np.array([0, 1, 1, 0])  # one of them, but not both
loss_fn = tg.nn.CrossEntropyLoss()
optimizer = tg.optim.Adam(model.parameters(), lr=0.03)
losses = []
for _ in range(50):
    optimizer.zero_grad()
    losses.append(float(loss_fn(model(corners), tg.asarray(xor, device="sim"))))
    model.backward(loss_fn.backward(), input_grad=False)
    optimizer.step()
answers = model(corners).numpy().argmax(axis=1)
print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}; answers {answers}, wanted {xor}")

# %% [markdown]
# ## And on a real GPU?
#
# The text in `SOURCE` is a complete CUDA file; nothing in it knows of tilegrad. Save it as
# `quick_gelu.cu`, and NVIDIA's compiler takes it as it is:
#
# - `nvcc -arch=sm_80 -cubin quick_gelu.cu` makes machine code for a GPU (here of the generation
#   of the A100). With `-Xptxas -v` it says how many registers a thread needs.
# - `nvcc -arch=sm_80 -ptx quick_gelu.cu` writes the instructions as text, one kernel after the
#   other. In a loop over `i` you will find `ld.global` and `st.global`: our load and our store.
#
# To launch it, a C++ program copies the arrays to the card and writes
# `quick_gelu_kernel<<<4, 128>>>(y, x, beta, n);` where we wrote
# `quick_gelu_kernel[4, 128](y, x, beta, n)`. Only nvcc can read these brackets, which is why such
# lines stay out of the file that we compile here.
#
# What will be the same there: the results up to the last digit or two (`exp` is another program on
# a GPU), which addresses each warp asks for, so the sectors and wavefronts, and the races. What the
# simulator cannot tell is time: how much of the traffic a cache catches, how many warps run at
# once, how far from the limit of the card you are. A ratio of 1.00 says that nothing is wasted, not
# that it is fast. For that you need the card.
#
# ## What to remember
#
# - A **kernel** is what one thread does; block and thread number tell it which part is its own.
# - Write the truth first, in NumPy; then the kernel; check its gradient by finite differences.
# - Threads of a warp should stand **side by side**, in global memory and in shared memory.
# - Between a write and another thread's read belongs a **barrier**. A right result proves nothing;
#   a trace without races, under several schedules, says a lot.
#
# What else the simulator notices stands in [its own page](../simulator.md); how matrix products are
# made fast, one idea at a time, in [the ladder](../matmul-ladder.md).
