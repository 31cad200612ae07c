// Kernels for generation on CPUs: products of a few rows with a large matrix, and attention to a cache.
//
// A product of a few rows is limited by memory bandwidth, because it reads the matrix once. The matrix is therefore packed
// into panels of columns, stored in the order in which the kernel reads them; each part of a panel is multiplied with all
// rows while it is in registers, and later parts are prefetched. Attention reads no cache slot after the last visible one.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Matrix = ffi::Buffer<ffi::F32, 2>;
using Panels = ffi::Buffer<ffi::F32, 3>;
using Heads = ffi::Buffer<ffi::F32, 4>;
using Mask = ffi::Buffer<ffi::PRED, 2>;

// Floats per vector register, and registers of columns per row of the micro-kernel: as many as leave all sums of 8 rows in
// registers.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRegisters = 3;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRegisters = 1;
#elif defined(__ARM_NEON)
constexpr int kLanes = 4, kRegisters = 2;
#else
constexpr int kLanes = 4, kRegisters = 1;
#endif
// Columns of a panel: those of the micro-kernel, but at least a cache line of 16 floats.
extern "C" {
extern const int max_panel_width = std::max(16, kRegisters * kLanes);
}
// Prefetch distance in floats. It is shorter for the cache, whose heads are short, so that less lies beyond their ends.
constexpr int64_t kMatrixAhead = 2304, kCacheAhead = 768;
// Matrix rows that are summed separately, to limit rounding errors.
constexpr int64_t kPartialSum = 512;

typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4)));
static Vector Load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
// Loads a vector and prefetches the one `ahead` floats later.
static Vector Stream(const float* from, int64_t ahead) {
  __builtin_prefetch(from + ahead);
  return Load(from);
}
static void Store(float* to, Vector v) { *reinterpret_cast<Vector*>(to) = v; }

// The product y = x w of B rows with a matrix packed into panels.
struct Product {
  const float *x, *w;         // x is [B, k], w is [n / width, k, width]
  float* y;                   // [B, n]
  int64_t rows, k, n, width;
};

// Micro-kernel: multiplies B rows at x with C * kLanes columns of a panel, which begin at w, into y.
template <int B, int C>
static void MultiplyColumns(const Product& p, const float* x, const float* w, float* y) {
  for (int64_t first = 0; first < p.k; first += kPartialSum) {
    Vector sum[B][C] = {};
    for (int64_t i = first; i < std::min(p.k, first + kPartialSum); ++i) {
      Vector part[C];
      for (int c = 0; c < C; ++c) part[c] = Stream(w + i * p.width + c * kLanes, kMatrixAhead);
      for (int b = 0; b < B; ++b)
        for (int c = 0; c < C; ++c) sum[b][c] += x[b * p.k + i] * part[c];
    }
    for (int b = 0; b < B; ++b)
      for (int c = 0; c < C; ++c) {
        float* to = y + b * p.n + c * kLanes;
        Store(to, first ? Load(to) + sum[b][c] : sum[b][c]);
      }
  }
}

// Multiplies B rows, from `row` on, with a panel.
template <int B>
static void MultiplyPanel(const Product& p, int64_t row, int64_t panel) {
  const float *x = p.x + row * p.k, *w = p.w + panel * p.k * p.width;
  float* y = p.y + row * p.n + panel * p.width;
  int64_t j = 0;
  for (; j + kRegisters * kLanes <= p.width; j += kRegisters * kLanes) MultiplyColumns<B, kRegisters>(p, x, w + j, y + j);
  if constexpr (kRegisters == 3)
    for (; j + 2 * kLanes <= p.width; j += 2 * kLanes) MultiplyColumns<B, 2>(p, x, w + j, y + j);
  for (; j < p.width; j += kLanes) MultiplyColumns<B, 1>(p, x, w + j, y + j);
}

// Calls body(begin, end) for chunks of the range 0 to n, on all threads. The calling thread works too, and waits only for
// chunks that another thread has started, so that it finishes even if all other threads are busy.
template <typename F>
static void Parallel(ffi::ThreadPool& pool, int64_t n, int64_t chunk, F body) {
  struct Shared {
    std::atomic<int64_t> started{0}, done{0};
  };
  auto shared = std::make_shared<Shared>();
  int64_t chunks = (n + chunk - 1) / chunk;
  auto work = [=] {
    for (int64_t i; (i = shared->started++) < chunks; ++shared->done) body(i * chunk, std::min(n, (i + 1) * chunk));
  };
  for (int64_t thread = 1; thread < std::min(pool.num_threads(), chunks); ++thread) pool.Schedule(decltype(work)(work));
  work();
  while (shared->done < chunks) std::this_thread::yield();
}

// Packs a matrix [k, n], or [n, k] if it is transposed, into panels [n / width, k, width].
static ffi::Error PackPanels(ffi::ThreadPool pool, bool transposed, Matrix w, ffi::Result<Panels> panels) {
  auto size = panels->dimensions();
  int64_t k = size[1], width = size[2], n = size[0] * width;
  const float* from = w.typed_data();
  float* to = panels->typed_data();
  Parallel(pool, size[0], 1, [=](int64_t panel, int64_t) {
    float* out = to + panel * k * width;
    const float* in = from + panel * width * (transposed ? k : 1);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < width; ++j) *out++ = transposed ? in[j * k + i] : in[i * n + j];
  });
  return ffi::Error::Success();
}

// Multiplies x [B, k] with a matrix in panels [n / width, k, width].
static ffi::Error PackedMatmul(ffi::ThreadPool pool, Matrix x, Panels w, ffi::Result<Matrix> y) {
  static constexpr decltype(&MultiplyPanel<8>) kMultiplyPanel[] = {
      MultiplyPanel<1>, MultiplyPanel<2>, MultiplyPanel<3>, MultiplyPanel<4>,
      MultiplyPanel<5>, MultiplyPanel<6>, MultiplyPanel<7>, MultiplyPanel<8>};
  auto size = w.dimensions();
  Product p{x.typed_data(), w.typed_data(), y->typed_data(), x.dimensions()[0], size[1], size[0] * size[2], size[2]};
  int64_t panels = size[0], threads = std::max<int64_t>(pool.num_threads(), 1);
  Parallel(pool, panels, (panels - 1) / (2 * threads) + 1, [=](int64_t panel, int64_t end) {
    for (; panel < end; ++panel)
      for (int64_t row = 0; row < p.rows; row += 8) kMultiplyPanel[std::min<int64_t>(p.rows - row, 8) - 1](p, row, panel);
  });
  return ffi::Error::Success();
}

template <int N>
static float Sum(const float* v) {
  if constexpr (N == 1) {
    return *v;
  } else {
    float half[N / 2];
    for (int i = 0; i < N / 2; ++i) half[i] = v[i] + v[i + N / 2];
    return Sum<N / 2>(half);
  }
}

static float Dot(const float* a, const float* b, int64_t n) {
  Vector sum = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum += Load(a + i) * Stream(b + i, kCacheAhead);
  float total = Sum<kLanes>(reinterpret_cast<float*>(&sum));
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

// Computes C * kLanes entries of the weighted sum of the values of all slots.
template <int C>
static void WeightedSum(const float* weights, const float* v, int64_t slots, int64_t width, float* y) {
  Vector sum[C] = {};
  for (int64_t s = 0; s < slots; ++s)
    for (int c = 0; c < C; ++c) sum[c] += weights[s] * Stream(v + s * width + c * kLanes, kCacheAhead);
  for (int c = 0; c < C; ++c) Store(y + c * kLanes, sum[c]);
}

// Attention of one query to the visible slots of one head; `weights` is scratch space of one float per slot.
static void Attend(const float* q, const float* k, const float* v, const bool* visible, int64_t slots, int64_t width,
                   float* weights, float* y) {
  float highest = -INFINITY, total = 0, scale = 1 / std::sqrt(float(width));
  for (int64_t s = 0; s < slots; ++s) {
    weights[s] = visible[s] ? scale * Dot(q, k + s * width, width) : -INFINITY;
    highest = std::max(highest, weights[s]);
  }
  for (int64_t s = 0; s < slots; ++s) total += weights[s] = std::exp(weights[s] - highest);
  for (int64_t s = 0; s < slots; ++s) weights[s] /= total;
  int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) WeightedSum<4>(weights, v + i, slots, width, y + i);
  for (; i + kLanes <= width; i += kLanes) WeightedSum<1>(weights, v + i, slots, width, y + i);
  for (; i < width; ++i) {
    y[i] = 0;
    for (int64_t s = 0; s < slots; ++s) y[i] += weights[s] * v[s * width + i];
  }
}

// Attention of queries [B, N, 1, H] to a cache [B, K, S, H]; each of the K heads serves N / K query heads.
static ffi::Error DecodeAttention(ffi::ThreadPool pool, Heads q, Heads k, Heads v, Mask visible, ffi::Result<Heads> y) {
  int64_t heads = q.dimensions()[1], kv_heads = k.dimensions()[1], slots = k.dimensions()[2], width = k.dimensions()[3];
  const float *queries = q.typed_data(), *keys = k.typed_data(), *values = v.typed_data();
  const bool* mask = visible.typed_data();
  float* out = y->typed_data();
  int64_t all = q.dimensions()[0] * kv_heads, chunks = 4 * std::max<int64_t>(pool.num_threads(), 1);
  Parallel(pool, all, (all - 1) / chunks + 1, [=](int64_t first, int64_t end) {
    std::vector<float> weights(slots);
    for (int64_t n = first; n < end; ++n) {
      const bool* row = mask + n / kv_heads * slots;
      int64_t used = slots;
      while (used > 1 && !row[used - 1]) --used;
      for (int64_t head = n * heads / kv_heads; head < (n + 1) * heads / kv_heads; ++head)
        Attend(queries + head * width, keys + n * slots * width, values + n * slots * width, row, used, width,
               weights.data(), out + head * width);
    }
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    decode_attention, DecodeAttention,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Heads>().Arg<Heads>().Arg<Heads>().Arg<Mask>().Ret<Heads>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(packed_matmul, PackedMatmul,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Matrix>().Arg<Panels>().Ret<Matrix>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    pack_panels, PackPanels,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attr<bool>("transposed").Arg<Matrix>().Ret<Panels>());
