// Loads a bundle, runs a matrix-vector product (int4/g128) and an RMSNorm on an OpenCL device, and checks both.
//
//   kiln-example BUNDLE [PART OF A DEVICE'S OR PLATFORM'S NAME]
//
// What an engine does with Kiln is here, in order: describe the device, select an entry, build what it names, pack the
// weights in the layout it names, launch what it lists. The right answers come from plain loops in double.
#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS  // clCreateCommandQueue: drivers of OpenCL 1.2 have nothing else
#include <cstring>
#include <iostream>
#include <random>

#include "kiln_opencl.hpp"

namespace {

using kiln::Int;
using Bytes = std::vector<std::uint8_t>;
using Halves = std::vector<std::uint16_t>;

std::uint16_t half_from(float value) {  // to nearest, ties to even; small ones become 0
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const std::uint32_t sign = bits >> 16 & 0x8000U, rounded = (bits & 0x7FFFFFFFU) + 0xFFFU + (bits >> 13 & 1U);
  if (rounded < 0x38800000U) return static_cast<std::uint16_t>(sign);
  return static_cast<std::uint16_t>(sign | (rounded - 0x38000000U) >> 13);
}

float float_from(std::uint16_t half) {
  if ((half & 0x7C00U) == 0)
    return std::ldexp(static_cast<float>(half & 0x3FFU), -24) * ((half & 0x8000U) ? -1.0F : 1.0F);
  const std::uint32_t bits = (half & 0x8000U) << 16 | (((half & 0x7FFFU) << 13) + 0x38000000U);
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void must(cl_int status, const char* what) {
  if (status != CL_SUCCESS)
    throw kiln::Error(std::string(what) + " failed with OpenCL error " + std::to_string(status));
}

struct Gpu {
  cl_device_id device = nullptr;
  cl_context context = nullptr;
  cl_command_queue queue = nullptr;
  std::map<std::string, cl_program>
      programs;  // by source and options; sizes are arguments, so that others find it built
  std::vector<cl_mem> owned;

  explicit Gpu(const std::string& part) {
    std::array<cl_platform_id, 16> platforms{};
    cl_uint count = 0;
    clGetPlatformIDs(platforms.size(), platforms.data(), &count);
    for (cl_uint i = 0; i < std::min<cl_uint>(count, platforms.size()) && device == nullptr; ++i) {
      std::array<cl_device_id, 16> devices{};
      cl_uint here = 0;
      if (clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, devices.size(), devices.data(), &here) != CL_SUCCESS)
        continue;
      for (cl_uint j = 0; j < std::min<cl_uint>(here, devices.size()) && device == nullptr; ++j) {
        const std::string name = kiln::detail::device_text(devices[j], CL_DEVICE_NAME) + " " +
                                 kiln::detail::platform_text(platforms[i], CL_PLATFORM_NAME);
        if (name.find(part) != std::string::npos) device = devices[j];
      }
    }
    if (device == nullptr)
      throw kiln::Error("no OpenCL device \"" + part + "\" is here; set OCL_ICD_VENDORS to a folder with an .icd file");
    cl_int status = 0;
    context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &status);
    must(status, "making a context");
    queue = clCreateCommandQueue(context, device, 0, &status);  // in order: each launch sees what those before it wrote
    must(status, "making a queue");
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;
  ~Gpu() {
    for (cl_mem buffer : owned) clReleaseMemObject(buffer);
    for (const auto& item : programs) clReleaseProgram(item.second);
    if (queue != nullptr) clReleaseCommandQueue(queue);
    if (context != nullptr) clReleaseContext(context);
  }

  cl_mem buffer(std::size_t bytes, const void* content = nullptr) {
    cl_int status = 0;
    const cl_mem_flags flags = CL_MEM_READ_WRITE | (content != nullptr ? CL_MEM_COPY_HOST_PTR : 0U);
    owned.push_back(clCreateBuffer(context, flags, bytes, const_cast<void*>(content), &status));
    must(status, "making a buffer");
    return owned.back();
  }

  cl_program program(const kiln::Bundle& bundle, const kiln::Entry& entry) {
    std::string options;
    for (const std::string& option : entry.build_options) options += option + " ";
    cl_program& made = programs[entry.source_sha256 + " " + options];
    if (made != nullptr) return made;
    const std::string source = bundle.source(entry);
    const char* text = source.c_str();
    made = clCreateProgramWithSource(context, 1, &text, nullptr, nullptr);
    if (made == nullptr || clBuildProgram(made, 1, &device, options.c_str(), nullptr, nullptr) != CL_SUCCESS)
      throw kiln::Error("it does not build here");
    return made;
  }

  // Runs an entry, or, with no buffers, only asks whether this device and this host can.
  void run(const kiln::Bundle& bundle, const kiln::Entry& entry, const kiln::Dims& dims,
           std::map<std::string, cl_mem> buffers) {
    const bool ask = buffers.empty();
    const cl_program built = program(bundle, entry);
    if (!ask)
      for (const kiln::Scratch& scratch : entry.scratch)
        buffers[scratch.name] = buffer(static_cast<std::size_t>(kiln::evaluate(scratch.bytes, dims)));
    for (const kiln::Launch& launch : entry.launches) {
      cl_int status = 0;
      cl_kernel kernel = clCreateKernel(built, launch.entry.c_str(), &status);
      must(status, "finding a kernel");
      const struct Release {
        cl_kernel of;
        ~Release() { clReleaseKernel(of); }
      } release{kernel};
      std::size_t limit = 0;
      must(clGetKernelWorkGroupInfo(kernel, device, CL_KERNEL_WORK_GROUP_SIZE, sizeof limit, &limit, nullptr),
           "asking for a limit");
      std::array<std::size_t, 3> global{1, 1, 1}, local{1, 1, 1};
      const std::vector<Int> work = kiln::grid(launch, dims), group = kiln::clamp(launch, static_cast<Int>(limit));
      std::copy(work.begin(), work.end(), global.begin());
      std::copy(group.begin(), group.end(), local.begin());
      for (cl_uint i = 0; i < launch.args.size(); ++i) {
        const kiln::Argument& arg = launch.args[i];
        if (arg.image) throw kiln::Error("this host makes no images");
        if (ask) continue;
        if (const auto dim = dims.find(arg.name); dim != dims.end()) {
          const cl_int size = static_cast<cl_int>(dim->second);
          must(clSetKernelArg(kernel, i, sizeof size, &size), "setting a size");
        } else {
          must(clSetKernelArg(kernel, i, sizeof(cl_mem), &buffers.at(arg.name)), "setting a buffer");
        }
      }
      if (!ask)
        must(clEnqueueNDRangeKernel(queue, kernel, static_cast<cl_uint>(work.size()), nullptr, global.data(),
                                    group.empty() ? nullptr : local.data(), 0, nullptr, nullptr),
             "a launch");
    }
  }

  Halves read(cl_mem from, std::size_t count) {
    Halves found(count);
    must(clEnqueueReadBuffer(queue, from, CL_TRUE, 0, 2 * count, found.data(), 0, nullptr, nullptr),
         "reading a result");
    return found;
  }
};

kiln::Selection choose(Gpu& gpu, const kiln::Bundle& bundle, const kiln::Device& device,
                       const kiln::Workload& workload) {
  kiln::Ask ask;
  ask.abi_version = 1;  // of gemv_decode and rmsnorm, whose arguments are bound by name below
  ask.veto = [&](const kiln::Bundle& from, const kiln::Entry& entry) -> std::string {
    try {
      gpu.run(from, entry, workload.dims, {});
      return "";
    } catch (const kiln::Error& error) {
      return error.what();
    }
  };
  kiln::Selection chosen = kiln::select({&bundle}, workload, device, ask);
  std::cout << workload.family << ": " << chosen.entry->id << ", variant " << chosen.entry->variant << ", level "
            << kiln::name_of(chosen.level) << " (" << chosen.how << ")\n";
  return chosen;
}

// Largest difference over the root mean square of what is right: what Kiln calls max_scaled.
bool judge(const std::string& what, const Halves& got, const std::vector<double>& right) {
  double largest = 0, squares = 0;
  for (std::size_t i = 0; i < right.size(); ++i) {
    const double off = std::fabs(static_cast<double>(float_from(got[i])) - right[i]);
    largest = off > largest || std::isnan(off) ? off : largest;
    squares += right[i] * right[i];
  }
  const double error = largest / std::sqrt(squares / static_cast<double>(right.size()));
  const bool good = error <= 0.01;  // halves have 11 bits: 0.002 of the largest
  std::cout << what << ": " << (good ? "ok" : "WRONG") << ", error " << error << '\n';
  return good;
}

bool gemv(Gpu& gpu, const kiln::Bundle& bundle, const kiln::Device& device) {
  const std::size_t N = 1000, K = 2048, group = 128;
  const kiln::Workload workload{
      "gemv_decode", {{"M", 1}, {"N", N}, {"K", K}}, {"fp16", "fp32", "fp32", ""}, "int4/g128", {}};
  const kiln::Selection chosen = choose(gpu, bundle, device, workload);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Halves x(K), scale(N * K / group), bias(N * K / group);
  for (auto& value : x) value = half_from(normal(random));
  for (auto& value : scale) value = half_from(0.004F + 0.001F * std::fabs(normal(random)));
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = half_from(-8.0F * float_from(scale[i]));
  Bytes codes(N * K);
  for (auto& code : codes) code = static_cast<std::uint8_t>(random() & 15U);

  // nPk8: words [N/P][K/8][P]; from bit 0 upwards k0 k2 k4 k6 k1 k3 k5 k7. Scale and bias pairs follow the panels.
  std::string layout;
  for (const auto& [tensor, name] : chosen.entry->layout)
    if (tensor == "w") layout = name;
  std::smatch found;
  if (!std::regex_match(layout, found, std::regex("n(\\d+)k8")))
    throw kiln::Error("this host packs nPk8 alone, not " + layout);
  const std::size_t P = std::stoul(found[1]), panels = (N + P - 1) / P;
  std::vector<std::uint32_t> words(panels * (K / 8) * P);
  Halves pairs(panels * (K / group) * P * 2);
  for (std::size_t n = 0; n < N; ++n) {
    for (std::size_t k = 0; k < K; ++k) {
      const std::size_t place = k % 8 / 2 + (k % 2) * 4;
      words[(n / P * (K / 8) + k / 8) * P + n % P] |= std::uint32_t{codes[n * K + k]} << (4 * place);
    }
    for (std::size_t g = 0; g < K / group; ++g) {
      std::uint16_t* pair = &pairs[2 * ((n / P * (K / group) + g) * P + n % P)];
      pair[0] = scale[n * K / group + g];
      pair[1] = bias[n * K / group + g];
    }
  }
  const cl_mem y = gpu.buffer(2 * N);
  gpu.run(*chosen.bundle, *chosen.entry, workload.dims,
          {{"x", gpu.buffer(2 * K, x.data())},
           {"w", gpu.buffer(4 * words.size(), words.data())},
           {"sb", gpu.buffer(2 * pairs.size(), pairs.data())},
           {"y", y}});

  std::vector<double> right(N, 0.0);
  for (std::size_t n = 0; n < N; ++n)
    for (std::size_t k = 0; k < K; ++k) {
      const std::size_t g = n * (K / group) + k / group;
      right[n] +=
          static_cast<double>(float_from(x[k])) *
          (static_cast<double>(float_from(scale[g])) * codes[n * K + k] + static_cast<double>(float_from(bias[g])));
    }
  return judge("gemv_decode", gpu.read(y, N), right);
}

bool rmsnorm(Gpu& gpu, const kiln::Bundle& bundle, const kiln::Device& device) {
  const std::size_t M = 3, N = 2000;
  // The norm that the document has: Gemma's 1 + w, or plain RMSNorm.
  bool one = false;
  if (const auto section = bundle.document.kernels.find("rmsnorm"); section != bundle.document.kernels.end())
    for (const kiln::Entry& entry : section->second.entries) {
      const kiln::Json* norm = kiln::detail::lookup(entry.match.options, "norm");
      one = one || (norm != nullptr && *norm == "rms1p");
    }
  kiln::Workload workload{"rmsnorm", {{"M", M}, {"N", N}}, {"fp16", "fp32", "fp32", ""}, "", {}};
  if (one) workload.options.push_back({"norm", "rms1p"});  // what is usual is no option
  const kiln::Selection chosen = choose(gpu, bundle, device, workload);
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  Halves x(M * N), w(N);
  for (auto& value : x) value = half_from(normal(random));
  for (auto& value : w) value = half_from(0.1F * normal(random));
  const cl_mem y = gpu.buffer(2 * M * N);
  gpu.run(*chosen.bundle, *chosen.entry, workload.dims,
          {{"x", gpu.buffer(2 * x.size(), x.data())}, {"w", gpu.buffer(2 * w.size(), w.data())}, {"y", y}});

  std::vector<double> right(M * N);
  for (std::size_t m = 0; m < M; ++m) {
    double squares = 0;
    for (std::size_t n = 0; n < N; ++n) squares += std::pow(static_cast<double>(float_from(x[m * N + n])), 2);
    for (std::size_t n = 0; n < N; ++n)
      right[m * N + n] = static_cast<double>(float_from(x[m * N + n])) /
                         std::sqrt(squares / static_cast<double>(N) + 1e-6) *
                         (static_cast<double>(float_from(w[n])) + (one ? 1.0 : 0.0));
  }
  return judge("rmsnorm", gpu.read(y, M * N), right);
}

}  // namespace

extern "C" int main(int argc, char** argv) try {
  if (argc != 2 && argc != 3) {
    std::cerr << "usage: kiln-example BUNDLE [PART OF A DEVICE'S OR PLATFORM'S NAME]\n";
    return 2;
  }
  const kiln::Bundle bundle = kiln::load_bundle(argv[1]);
  Gpu gpu(argc == 3 ? argv[2] : "");
  const kiln::Device device = kiln::describe(gpu.device);
  std::cout << "on " << device.vendor << " " << device.model << ", driver " << device.driver << ", compiler "
            << device.compiler << '\n';
  const bool product = gemv(gpu, bundle, device), norm = rmsnorm(gpu, bundle, device);
  return product && norm ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << "kiln-example: " << error.what() << '\n';
  return 1;
}
