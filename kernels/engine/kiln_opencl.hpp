// What an OpenCL device says of itself, as kiln::select compares it: kernels/identity.py and
// harness/runner/describe.py.
//
// The names are normalised as Kiln's are when it tunes, since drivers decorate them: "QUALCOMM Adreno(TM)" with
// "OpenCL 3.0 Adreno(TM) 750" is vendor qualcomm, family adreno-7xx, model adreno-750.
#pragma once

#include <CL/cl.h>

#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include "kiln.hpp"

namespace kiln {

namespace detail {

// Queries of CL/cl_ext.h that older headers lack.
constexpr cl_device_info image_pitch_alignment = 0x104A, image_base_alignment = 0x104B;  // texels
constexpr cl_device_info max_num_sub_groups = 0x105C, sub_group_sizes_intel = 0x4108;

template <typename T>
T device_value(cl_device_id device, cl_device_info query) {  // 0 where the driver does not know it
  T value{};
  return clGetDeviceInfo(device, query, sizeof value, &value, nullptr) == CL_SUCCESS ? value : T{};
}

template <typename T>
std::vector<Int> device_list(cl_device_id device, cl_device_info query) {
  std::array<T, 64> values{};
  std::size_t bytes = 0;
  if (clGetDeviceInfo(device, query, sizeof values, values.data(), &bytes) != CL_SUCCESS) return {};
  std::vector<Int> found;
  for (std::size_t i = 0; i < bytes / sizeof(T); ++i) found.push_back(static_cast<Int>(values[i]));
  return found;
}

inline std::string trimmed(std::string text) {
  text = text.substr(0, text.find('\0'));
  const auto from = text.find_first_not_of(" \t\n"), to = text.find_last_not_of(" \t\n");
  return from == std::string::npos ? "" : text.substr(from, to - from + 1);
}

inline std::string device_text(cl_device_id device, cl_device_info query) {
  std::string text(16384, '\0');
  return clGetDeviceInfo(device, query, text.size(), text.data(), nullptr) == CL_SUCCESS ? trimmed(text) : "";
}

inline std::string platform_text(cl_platform_id platform, cl_platform_info query) {
  std::string text(4096, '\0');
  return clGetPlatformInfo(platform, query, text.size(), text.data(), nullptr) == CL_SUCCESS ? trimmed(text) : "";
}

inline std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

inline std::string plain(const std::string& text) {  // words joined by dashes, without what vendors decorate names with
  static const std::regex noise("\\((r|tm|c)\\)|\\b(corporation|corp|inc|opencl|graphics|gpu|processor)\\b"),
      other("[^a-z0-9]+");
  std::string found = std::regex_replace(std::regex_replace(lower(text), noise, " "), other, "-");
  if (!found.empty() && found.front() == '-') found.erase(0, 1);
  if (!found.empty() && found.back() == '-') found.pop_back();
  return found.empty() ? "unknown" : found;
}

inline std::string replaced(std::string text, const std::string& what, const std::string& by) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
  return text;
}

inline std::string vendor_of(const std::string& text) {
  const std::string words =
      "-" + plain(replaced(replaced(text, "Advanced Micro Devices", "AMD"), "AuthenticAMD", "AMD")) + "-";
  for (const char* vendor : {"qualcomm", "arm", "nvidia", "intel", "amd", "apple", "imagination", "samsung"})
    if (words.find("-" + std::string(vendor) + "-") != std::string::npos) return vendor;
  return words.substr(1, words.find('-', 1) - 1);
}

inline std::string without_prefix(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0 ? text.substr(prefix.size()) : text;
}

inline std::string mali_family(const std::string& model) {
  for (const char* bifrost : {"G31", "G51", "G52", "G71", "G72", "G76"})
    if (model == bifrost) return "mali-bifrost";
  for (const char* valhall : {"G57", "G68", "G77", "G78"})
    if (model == valhall) return "mali-valhall";
  if (model[0] == 'T') return "mali-midgard";
  return model.size() == 4 && std::stoi(model.substr(2)) < 20 ? "mali-valhall" : "mali-5th-gen";
}

inline Int cpu_vector_floats(cl_device_id device) {  // by Linux's flags of an x86, else as the driver reports
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.compare(0, 5, "flags") != 0) continue;
    line += ' ';
    if (line.find(" avx512f ") != std::string::npos) return 16;
    if (line.find(" avx ") != std::string::npos) return 8;
    break;
  }
  return device_value<cl_uint>(device, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT);
}

inline std::vector<Int> subgroup_sizes(cl_device_id device, const Device& facts) {
  if (facts.extensions.count("cl_intel_required_subgroup_size") > 0)
    return device_list<std::size_t>(device, sub_group_sizes_intel);
  if (facts.extensions.count("cl_khr_subgroups") == 0 && device_value<cl_uint>(device, max_num_sub_groups) == 0)
    return {};
  // Others tell what a plain kernel gets.
  const char* text = "__kernel void one(__global int *a) { a[get_global_id(0)] = 1; }";
  std::size_t size = 0;
  cl_context context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, nullptr);
  if (context == nullptr) return {};
  cl_program program = clCreateProgramWithSource(context, 1, &text, nullptr, nullptr);
  if (program != nullptr && clBuildProgram(program, 1, &device, "", nullptr, nullptr) == CL_SUCCESS) {
    if (cl_kernel kernel = clCreateKernel(program, "one", nullptr); kernel != nullptr) {
      const std::size_t local = static_cast<std::size_t>(std::min<Int>(128, facts.max_work_group));
      if (clGetKernelSubGroupInfo(kernel, device, CL_KERNEL_MAX_SUB_GROUP_SIZE_FOR_NDRANGE, sizeof local, &local,
                                  sizeof size, &size, nullptr) != CL_SUCCESS)
        size = 0;
      clReleaseKernel(kernel);
    }
  }
  if (program != nullptr) clReleaseProgram(program);
  clReleaseContext(context);
  return size > 0 ? std::vector<Int>{static_cast<Int>(size)} : std::vector<Int>{};
}

}  // namespace detail

// The facts of a live device. Builds one small kernel where that alone tells the width of subgroups.
inline Device describe(cl_device_id device) {
  using namespace detail;
  Device d;
  const auto platform = device_value<cl_platform_id>(device, CL_DEVICE_PLATFORM);
  const std::string name = device_text(device, CL_DEVICE_NAME), version = device_text(device, CL_DEVICE_VERSION);
  const std::string c_version = device_text(device, CL_DEVICE_OPENCL_C_VERSION);
  const std::string driver = device_text(device, CL_DRIVER_VERSION),
                    platform_name = platform_text(platform, CL_PLATFORM_NAME);
  const std::string platform_version = platform_text(platform, CL_PLATFORM_VERSION);
  const auto type = device_value<cl_device_type>(device, CL_DEVICE_TYPE);
  d.kind = (type & CL_DEVICE_TYPE_GPU) ? "gpu" : (type & CL_DEVICE_TYPE_CPU) ? "cpu" : "other";

  std::istringstream extensions(device_text(device, CL_DEVICE_EXTENSIONS));
  for (std::string each; extensions >> each;) d.extensions.insert(each);
  d.max_work_group = static_cast<Int>(device_value<std::size_t>(device, CL_DEVICE_MAX_WORK_GROUP_SIZE));
  d.max_work_item_sizes = device_list<std::size_t>(device, CL_DEVICE_MAX_WORK_ITEM_SIZES);
  d.local_bytes = static_cast<Int>(device_value<cl_ulong>(device, CL_DEVICE_LOCAL_MEM_SIZE));
  d.max_alloc_bytes = static_cast<Int>(device_value<cl_ulong>(device, CL_DEVICE_MAX_MEM_ALLOC_SIZE));
  d.global_bytes = static_cast<Int>(device_value<cl_ulong>(device, CL_DEVICE_GLOBAL_MEM_SIZE));
  d.cache_bytes = static_cast<Int>(device_value<cl_ulong>(device, CL_DEVICE_GLOBAL_MEM_CACHE_SIZE));
  d.compute_units = device_value<cl_uint>(device, CL_DEVICE_MAX_COMPUTE_UNITS);
  if (device_value<cl_bool>(device, CL_DEVICE_IMAGE_SUPPORT)) {
    d.image2d = {static_cast<Int>(device_value<std::size_t>(device, CL_DEVICE_IMAGE2D_MAX_WIDTH)),
                 static_cast<Int>(device_value<std::size_t>(device, CL_DEVICE_IMAGE2D_MAX_HEIGHT))};
    if (d.extensions.count("cl_khr_image2d_from_buffer") > 0) {
      d.image_pitch_texels = device_value<cl_uint>(device, image_pitch_alignment);
      d.image_base_texels = device_value<cl_uint>(device, image_base_alignment);
    }
  }
  std::smatch found;
  d.opencl_c = {1, 0};
  if (std::regex_search(c_version, found, std::regex("OpenCL C (\\d+)\\.(\\d+)")))
    d.opencl_c = {std::stoll(found[1]), std::stoll(found[2])};
  if (d.kind == "cpu") d.vector_floats = cpu_vector_floats(device);
  d.subgroup_sizes = subgroup_sizes(device, d);

  d.driver = d.compiler = driver;  // where a driver does not tell its compiler's version, the two come together
  if (std::regex_search(driver, found, std::regex("Compiler\\s+(\\S+)"))) {  // Qualcomm
    d.compiler = found[1];
    if (std::smatch build; std::regex_search(driver, build, std::regex("build:?\\s*(\\S+)"))) d.driver = build[1];
  } else if (std::regex_search(version, found, std::regex("\\bv\\d+\\.(r\\d+p\\d+)\\S*"))) {  // Arm
    d.driver = found[0];
    d.compiler = found[1];
  } else if (std::regex_search(platform_version, found, std::regex("\\bLLVM (\\d[\\w.]*)"))) {  // PoCL
    d.compiler = "LLVM-" + found[1].str();
  }

  const std::string text = name + " " + version + " " + c_version;
  if (std::regex_search(text, found, std::regex("Adreno\\s*(?:\\(TM\\))?\\s*(X?\\d+)", std::regex::icase))) {
    const std::string model = lower(found[1]);
    d.vendor = "qualcomm";
    d.family = "adreno-" + (model[0] == 'x' ? model : model.substr(0, 1) + "xx");
    d.model = "adreno-" + model;
  } else if (std::regex_search(text, found, std::regex("(?:Mali|Immortalis)-?([GT]\\d+)", std::regex::icase))) {
    std::string model = found[1];
    model[0] = static_cast<char>(model[0] >= 'a' ? model[0] - 32 : model[0]);
    d.vendor = "arm";
    d.family = mali_family(model);
    d.model = "mali-" + lower(model);
  } else if (d.kind ==
             "cpu") {  // virtual machines call every processor alike, so that its registers belong to its name
    d.vendor = platform_name == "Portable Computing Language" ? "pocl" : vendor_of(platform_name);
    d.family = "cpu";
    d.model = without_prefix(without_prefix(plain(name), "pthread-"), "cpu-") +
              (d.vector_floats > 0 ? "-" + std::to_string(32 * d.vector_floats) + "-bit" : "");
  } else {
    d.vendor = vendor_of(device_text(device, CL_DEVICE_VENDOR) + " " + name);
    d.family = d.vendor + "-" + d.kind;
    d.model = without_prefix(plain(name), d.vendor + "-");
    if (d.model.empty()) d.model = "unknown";
  }
  return d;
}

}  // namespace kiln
