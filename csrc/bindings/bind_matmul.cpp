// SPDX-License-Identifier: MIT
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr double kFlopsANanosecond = 50;

// The last two axes as a matrix, the axes before them as a batch.
struct Operand {
  void* data;
  Dims batch_strides;
  int64_t row_stride, col_stride;
};

Operand transposed(Operand operand) {
  std::swap(operand.row_stride, operand.col_stride);
  return operand;
}

template <class T>
Matrix<T> matrix(const Operand& operand, int64_t offset, int64_t batch_stride) {
  return {static_cast<T*>(operand.data) + offset, operand.row_stride, operand.col_stride,
          batch_stride};
}

// Sums of 16-bit products that NumPy's memory does not let run as one longer product: kept in
// float.
template <class T>
constexpr bool kWideSums = sizeof(T) == 2 && !kOnDevice;

template <class T>
void multiply(Context& context, Matrix<T> c, Matrix<const T> a, Matrix<const T> b, MatmulSize size,
              double beta, std::string_view variant) {
  matmul<T>(context, c, a, b, size, 1, beta, {}, variant);
}
template <class T>
  requires kWideSums<T>
void multiply(Context& context, Matrix<float> c, Matrix<const T> a, Matrix<const T> b,
              MatmulSize size, double beta, std::string_view) {
  matmul_to_float(context, c, a, b, size, 1, beta);
}

// c = a b for every index of the batch. Where c's batch stride is 0 the products are summed, in the
// order of the index. The last batch axis goes to the kernel as one batched product.
template <class T, class C>
void looped_matmul(Context& context, const Operand& c, const Operand& a, const Operand& b,
                   const Dims& batch, int64_t m, int64_t n, int64_t k, std::string_view variant) {
  const int last = batch.count - 1;
  const bool fused = last >= 0 && c.batch_strides[last] != 0;
  const int looped = fused ? last : batch.count;
  Dims index;
  for (int axis = 0; axis < looped; ++axis) index.push(0);
  const int64_t rounds = batch.product(0, looped);
  const int64_t inner = fused ? batch[last] : 1;
  for (int64_t round = 0; round < rounds; ++round) {
    int64_t at_a = 0, at_b = 0, at_c = 0;
    bool first = true;
    for (int axis = 0; axis < looped; ++axis) {
      at_a += index[axis] * a.batch_strides[axis];
      at_b += index[axis] * b.batch_strides[axis];
      at_c += index[axis] * c.batch_strides[axis];
      first = first && (c.batch_strides[axis] != 0 || index[axis] == 0);
    }
    multiply(context, matrix<C>(c, at_c, fused ? c.batch_strides[last] : 0),
             matrix<const T>(a, at_a, fused ? a.batch_strides[last] : 0),
             matrix<const T>(b, at_b, fused ? b.batch_strides[last] : 0), {inner, m, n, k},
             first ? 0 : 1, variant);
    for (int axis = looped - 1; axis >= 0 && ++index[axis] == batch[axis]; --axis) index[axis] = 0;
  }
}

// The same; sums over the batch are one longer product where the operands lie so. (Not for the
// CPU's wide types: their operands may lie anyhow, and the bits must not tell.) A sum of 16-bit
// products is rounded once then; on the CPU, whose 16-bit operands are contiguous here, always.
template <class T>
void batched_matmul(Context& context, Operand c, const Operand& a, const Operand& b, Dims batch,
                    int64_t m, int64_t n, int64_t k, std::string_view variant = {}) {
  if (m == 0 || n == 0 || batch.product() == 0) return;
  constexpr bool kMayMerge = kOnDevice || kWideSums<T>;
  for (int axis = batch.count - 1;
       kMayMerge && axis >= 0 && c.batch_strides[axis] == 0 &&
       a.batch_strides[axis] == k * a.col_stride && b.batch_strides[axis] == k * b.row_stride;
       --axis) {
    k *= batch[axis];
    batch.count = axis;
  }
  if constexpr (kWideSums<T>) {
    int64_t sums = m * n;
    bool is_sum = false;
    for (int axis = 0; axis < batch.count; ++axis) {
      if (c.batch_strides[axis] != 0) sums *= batch[axis];
      is_sum = is_sum || (c.batch_strides[axis] == 0 && batch[axis] > 1);
    }
    if (is_sum) {
      WorkspaceScope scope(context);
      auto* const result = static_cast<T*>(c.data);
      auto* const wide = context.workspace->take<float>(sums);
      c.data = wide;
      looped_matmul<T, float>(context, c, a, b, batch, m, n, k, variant);
      return convert(context, result, wide, sums);
    }
  }
  looped_matmul<T, T>(context, c, a, b, batch, m, n, k, variant);
}

// NumPy's rules: a vector on the left is a row, one on the right a column, and that axis is left
// out of the result; the axes before the last two broadcast.
struct Problem {
  Tensor a, b;
  bool a_vector, b_vector, transpose_a, transpose_b;
  Dims batch, result;
  int64_t m, n, k;

  Problem(py::handle a_object, py::handle b_object, py::handle transposes_a,
          py::handle transposes_b, const char* op)
      : a(read_float(a_object, op, "a", Floats::all, true)),
        b(read_like(a, b_object, op, "b", true)),
        a_vector(a.shape.count == 1),
        b_vector(b.shape.count == 1),
        transpose_a(parse_flag(transposes_a, op, "transpose_a")),
        transpose_b(parse_flag(transposes_b, op, "transpose_b")) {
    const bool ta = transpose_a, tb = transpose_b;
    check(a.shape.count > 0 && b.shape.count > 0,
          "{}: operands must have at least one axis; a is {}, b is {}", op, a.shape, b.shape);
    check(!(a_vector && ta) && !(b_vector && tb),
          "{}: a vector cannot be transposed; a is {}, b is {}", op, a.shape, b.shape);
    promote(a, a_vector, true);
    promote(b, b_vector, false);
    const int ra = a.shape.count, rb = b.shape.count;
    m = a.shape[ta ? ra - 1 : ra - 2];
    k = a.shape[ta ? ra - 2 : ra - 1];
    n = b.shape[tb ? rb - 2 : rb - 1];
    const int64_t kb = b.shape[tb ? rb - 1 : rb - 2];
    check(k == kb, "{}: inner sizes differ; a is {}{}, b is {}{}", op, shown(a, a_vector, true),
          ta ? " transposed" : "", shown(b, b_vector, false), tb ? " transposed" : "");
    batch = broadcast_shapes(a.shape.slice(0, ra - 2), b.shape.slice(0, rb - 2), op,
                             "the batch axes of a and b");
    result = batch;
    if (!a_vector) result.push(m);
    if (!b_vector) result.push(n);
  }

  // So that how a sum over the batch runs depends on shapes alone.
  template <class T>
  void make_contiguous(Context& context) {
    for (Tensor* t : {&a, &b}) {
      t->data = const_cast<T*>(contiguous<T>(context, *t));
      t->contiguous = true;
      int64_t stride = 1;
      for (int axis = t->shape.count - 1; axis >= 0; --axis) {
        t->strides[axis] = stride;
        stride *= t->shape[axis];
      }
    }
  }

  Operand left() const { return operand(a, transpose_a); }   // (m, k)
  Operand right() const { return operand(b, transpose_b); }  // (k, n)
  double nanoseconds() const { return 2.0 * batch.product() * m * n * k / kFlopsANanosecond; }

  // A contiguous array of the result's elements, seen as matrices (m, n).
  Operand product(void* data) const { return contiguous_operand(data, batch, m, n); }

  // Contiguous memory of an operand's own shape, seen from the batch: stride 0 where broadcast.
  Operand gradient(void* data, const Tensor& of) const {
    const int own = of.shape.count - 2;
    Operand plain =
        contiguous_operand(data, of.shape.slice(0, own), of.shape[own], of.shape[own + 1]);
    Dims strides;
    for (int axis = 0; axis < batch.count; ++axis) {
      const int i = axis - (batch.count - own);
      const bool repeated = i < 0 || (of.shape[i] == 1 && batch[axis] != 1);
      strides.push(repeated ? 0 : plain.batch_strides[i]);
    }
    plain.batch_strides = strides;
    return plain;
  }

 private:
  static void promote(Tensor& t, bool vector, bool as_row) {
    if (!vector) return;
    const int64_t n = t.shape[0], stride = t.strides[0];
    t.shape = as_row ? Dims{1, n} : Dims{n, 1};
    t.strides = as_row ? Dims{0, stride} : Dims{stride, 0};
  }
  static Dims shown(const Tensor& t, bool vector, bool as_row) {
    return vector ? Dims{t.shape[as_row ? 1 : 0]} : t.shape;
  }
  static Operand contiguous_operand(void* data, const Dims& batch, int64_t rows, int64_t cols) {
    Operand operand{data, {}, cols, 1};
    for (int axis = 0; axis < batch.count; ++axis) {
      operand.batch_strides.push(batch.product(axis + 1, batch.count) * rows * cols);
    }
    return operand;
  }
  Operand operand(const Tensor& t, bool transpose) const {
    const int rank = t.shape.count;
    Dims own = batch;
    own.push(t.shape[rank - 2]);
    own.push(t.shape[rank - 1]);
    const Tensor full = broadcast_to(t, own);
    Operand result{t.data, full.strides.slice(0, batch.count), t.strides[rank - 2],
                   t.strides[rank - 1]};
    return transpose ? transposed(result) : result;
  }
};

py::object forward(py::handle a, py::handle b, py::handle transpose_a, py::handle transpose_b,
                   py::handle variant, py::handle out) {
  constexpr const char* kOp = "matmul";
  CallContext context;
  const std::string rung = parse_variant(variant, kOp);
  const Problem p(a, b, transpose_a, transpose_b, kOp);
  const Tensor c = make_result(out, p.result, p.a.dtype, kOp, {&p.a, &p.b});
  const Operand left = p.left(), right = p.right();  // here: they count references (GIL)
  with_any_float(p.a.dtype, [&](auto t) {
    run(p.nanoseconds(), [&] {
      batched_matmul<decltype(t)>(*context, p.product(c.data), left, right, p.batch, p.m, p.n, p.k,
                                  rung);
    });
  });
  return out.is_none() ? scalar_or_array(c) : c.owner;
}

py::object backward(py::handle grad_output, py::handle a, py::handle b, py::handle transpose_a,
                    py::handle transpose_b, py::handle wrt, py::handle out) {
  constexpr const char* kOp = "matmul_backward";
  CallContext context;
  const Wanted wanted(wrt, {"a", "b"}, 3, kOp);
  Problem p(a, b, transpose_a, transpose_b, kOp);
  const Tensor dc = read_grad_output(*context, p.a, grad_output, p.result, kOp);

  Tensor results[2];
  const auto make = [&](int input, const Tensor& of, bool vector) {
    const Dims shape = vector ? Dims{of.size()} : of.shape;
    results[input] = make_result(wanted.out(out, input, kOp), shape, of.dtype, kOp,
                                 {&dc, &p.a, &p.b, &results[0]});
  };
  if (wanted[0]) make(0, p.a, p.a_vector);
  if (wanted[1]) make(1, p.b, p.b_vector);

  with_any_float(p.a.dtype, [&](auto t) {
    using T = decltype(t);
    if (kWideSums<T> && p.batch.count > 0) p.make_contiguous<T>(*context);
    const Operand left = p.left(), right = p.right();
    const Operand grad = p.product(const_cast<T*>(contiguous<T>(*context, dc)));
    const Operand da = p.gradient(results[0].data, p.a), db = p.gradient(results[1].data, p.b);
    run(2 * p.nanoseconds(), [&] {
      for (const Tensor& result : results) {  // a sum over no products
        if (result.data != nullptr && p.batch.product() == 0) {
          fill(*context, result.as<T>(), result.size(), 0);
        }
      }
      // da = dc b^T, db = a^T dc; of a transposed operand the transpose of that.
      if (wanted[0] && !p.transpose_a) {
        batched_matmul<T>(*context, da, grad, transposed(right), p.batch, p.m, p.k, p.n);
      } else if (wanted[0]) {
        batched_matmul<T>(*context, da, right, transposed(grad), p.batch, p.k, p.m, p.n);
      }
      if (wanted[1] && !p.transpose_b) {
        batched_matmul<T>(*context, db, transposed(left), grad, p.batch, p.k, p.n, p.m);
      } else if (wanted[1]) {
        batched_matmul<T>(*context, db, transposed(grad), left, p.batch, p.n, p.k, p.m);
      }
    });
  });
  return wanted.gather({results[0].owner, results[1].owner});
}

}  // namespace

void bind_matmul(py::module_& m) {
  m.def("matmul", &forward, py::arg("a"), py::arg("b"), py::arg("transpose_a"),
        py::arg("transpose_b"), py::arg("variant"), py::arg("out"));
  m.def("matmul_backward", &backward, py::arg("grad_output"), py::arg("a"), py::arg("b"),
        py::arg("transpose_a"), py::arg("transpose_b"), py::arg("wrt"), py::arg("out"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
