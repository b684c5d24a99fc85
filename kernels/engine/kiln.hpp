// Kiln's engine side: loads a tuned config or a bundle, checks it, and picks the entry to run. C++17, one header.
//
//   kiln::Bundle bundle = kiln::load_bundle("bundle");                    // made by python -m tuner bundle
//   kiln::Selection chosen = kiln::select({&bundle}, workload, device);   // device: what the driver says
//   const kiln::Entry& entry = *chosen.entry;                             // build bundle.source(entry), then for each
//   std::vector<std::int64_t> global = kiln::grid(entry.launches[0], workload.dims);   // launch
//
// It gives what kernels/select.py gives, entry and level, for the same documents, device and sizes. Needs nlohmann/json
// (Debian: nlohmann-json3-dev) and nothing of OpenCL. Everything that may go wrong is one kiln::Error whose text is one
// sentence: what, where, what next. Selections point into the bundles, which must outlive them. It is one long file so
// that an engine takes one; its parts stand in the order in which they are used.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <vector>

namespace kiln {

using Json = nlohmann::ordered_json;  // members in the order of the document, in which buckets are told
using Int = std::int64_t;

struct Error : std::runtime_error {
  explicit Error(const std::string& what) : std::runtime_error(printable(what)) {}

 private:
  static std::string printable(std::string text) {  // names in a document may hold anything, a zero or a new line too
    for (char& c : text)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
    return text;
  }
};

// ---------------------------------------------------------------- the nouns, as in kernels/tuned/nouns.py

struct Interval {
  Int low = 1;
  std::optional<Int> high;  // inclusive; none = unbounded
};
using Bucket = std::vector<std::pair<std::string, Interval>>;
using Dims = std::map<std::string, Int>;
using Scalars = std::vector<std::pair<std::string, Json>>;  // texts, numbers, booleans and null

struct Factor {
  std::string dim;  // "" = the integer `by` itself, else ceil(dim / by)
  Int by = 1;
};
using Size = std::vector<Factor>;  // a product

struct DTypes {
  std::string act, compute, acc, cache;  // cache "" = the family has none
  bool operator==(const DTypes& o) const {
    return act == o.act && compute == o.compute && acc == o.acc && cache == o.cache;
  }
};

struct Match {
  std::string weights;  // "" = the family has none
  DTypes dtypes;
  Scalars options;
};

struct ImageView {
  std::string of, channels, type;
  Size width, height;
};
struct Argument {
  std::string name;  // of an argument, a dim or a scratch buffer; "" where `image` says it
  std::optional<ImageView> image;
};
struct Launch {
  std::string entry;
  std::vector<Size> grid;
  std::vector<Int> local;  // empty = the driver chooses
  std::vector<Argument> args;
};
struct Scratch {
  std::string name;
  Size bytes;
};

struct Needs {
  Int work_group = 1, local_bytes = 0;
  std::vector<std::string> extensions;
  std::vector<std::pair<std::string, Int>> multiple_of;
};

struct Rule {  // what only the kernel's author can know, as a tree of comparisons; comes with a bundle
  std::string why;
  Json tree;
};

struct Entry {
  std::string id;
  Match match;
  std::optional<Bucket> bucket;
  std::string variant;
  Scalars params;
  std::string source_sha256;
  std::vector<std::string> build_options;
  std::vector<Launch> launches;
  std::vector<Scratch> scratch;
  std::vector<std::pair<std::string, std::string>> layout;  // packed tensor, layout
  Needs needs;
  bool measured = false;
  std::optional<double> median_ns;
  std::vector<std::string> alternates;
  std::vector<Rule> rules;
};

struct Arg {
  std::string name, role;
  bool operator==(const Arg& o) const { return name == o.name && role == o.role; }
};
struct Deny {
  Scalars params;
  std::vector<std::string> compiler;
  std::string why;
};
struct Section {
  Int abi_version = 1;
  std::vector<Arg> args;
  std::vector<Entry> entries;
  std::string default_id;
  std::vector<Deny> deny;
};
struct Route {
  std::string kernel, weights;  // weights "" = every format
  Bucket bucket;
};

struct Device {
  std::string vendor, family, model, driver, compiler, kind;
  Int max_work_group = 0, local_bytes = 0, max_alloc_bytes = 0, global_bytes = 0, compute_units = 0, cache_bytes = 0;
  Int image_pitch_texels = 0, image_base_texels = 0, vector_floats = 0;
  std::vector<Int> max_work_item_sizes, subgroup_sizes, opencl_c;
  std::optional<std::pair<Int, Int>> image2d;
  std::set<std::string> extensions;
};

struct Document {
  Device device;
  bool measured = false, edited = false;  // edited: the content is not what its checksum was made of
  std::map<std::string, std::vector<Route>> ops;
  std::map<std::string, Section> kernels;
};

struct Workload {
  std::string family;
  Dims dims;
  DTypes dtypes;
  std::string weights;
  Scalars options;
};

// ---------------------------------------------------------------- JSON, read as kernels/tuned reads it

namespace detail {

constexpr int max_depth = 64;                    // of lists and objects within each other
constexpr Int max_integer = (Int{1} << 53) - 1;  // every JSON reader holds it exactly
constexpr const char* again = "; tune again or restore the file";

// Builds the value and refuses what JSON allows but no document has: names twice, deep nesting, enormous numbers.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Json root;
  std::string problem;

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override {
    return value > static_cast<number_unsigned_t>(INT64_MAX) ? too_long() : put(static_cast<Int>(value));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    return text.find_first_of(".eE") == string_t::npos ? too_long() : put(value);
  }
  bool string(string_t& value) override { return put(value); }
  bool binary(binary_t&) override { return fail("the document holds bytes"); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool key(string_t& name) override {
    if (!names_.back().insert(name).second) {
      problem = "the document has \"" + name + "\" twice in one object; remove one";
      return false;
    }
    key_ = name;
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t at, const std::string&, const nlohmann::detail::exception& why) override {
    const bool range = std::string(why.what()).find("out_of_range") != std::string::npos;
    problem = range ? std::string("the document holds a number too long") + again
                    : "byte " + std::to_string(at) + ": the document is not JSON, or ends in the middle" + again;
    return false;
  }

 private:
  std::vector<Json*> open_;  // an open value gets no siblings before it closes, so that pointers stay
  std::vector<std::unordered_set<std::string>> names_;
  std::string key_;

  bool fail(const std::string& what) {
    problem = what + again;
    return false;
  }
  bool too_long() { return fail("the document holds a number too long"); }
  Json* place(Json value) {
    if (open_.empty()) return &(root = std::move(value));
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    auto& members = open_.back()->get_ref<Json::object_t&>();
    members.push_back({key_, std::move(value)});
    return &members.back().second;
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (open_.size() >= static_cast<std::size_t>(max_depth)) {
      problem = "$ is nested too deeply to be a tuned config; restore the file";
      return false;
    }
    open_.push_back(place(std::move(value)));
    names_.emplace_back();
    return true;
  }
  bool close() {
    open_.pop_back();
    names_.pop_back();
    return true;
  }
};

inline Json parse(const std::string& text) {
  // nlohmann/json skips a byte-order mark and takes a zero byte for the end; neither is JSON.
  if (text.compare(0, 3, "\xEF\xBB\xBF") == 0 || text.find('\0') != std::string::npos)
    throw Error(std::string("the document is not JSON") + again);
  Builder builder;
  if (!Json::sax_parse(text, &builder)) throw Error(builder.problem);
  return std::move(builder.root);
}

// A value and its path, so that every complaint says where.
class Node {
 public:
  Node(const Json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  const Json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }
  [[noreturn]] void wrong(const std::string& what) const { throw Error(path_ + " " + what + again); }
  [[noreturn]] void expect(const std::string& what) const {
    std::string shown = value_->dump(-1, ' ', false, Json::error_handler_t::replace);
    if (shown.size() > 40) {
      std::size_t end = 37;  // not within a character
      while (end > 0 && (static_cast<unsigned char>(shown[end]) & 0xC0) == 0x80) --end;
      shown = shown.substr(0, end) + "...";
    }
    wrong("should be " + what + ", found " + shown);
  }

  const Json* find(const std::string& key) const {
    if (!value_->is_object()) return nullptr;
    const auto member = value_->find(key);
    return member == value_->end() ? nullptr : &*member;
  }
  bool has(const std::string& key) const { return find(key) != nullptr; }
  Node at(const std::string& key) const {
    if (!value_->is_object()) expect("an object");
    const Json* member = find(key);
    if (member == nullptr) throw Error(path_ + "." + key + " is missing" + again);
    return Node(*member, path_ + "." + key);
  }
  std::vector<std::pair<std::string, Node>> items() const {
    if (!value_->is_object()) expect("an object");
    std::vector<std::pair<std::string, Node>> found;
    for (const auto& member : value_->items())
      found.push_back({member.key(), {member.value(), path_ + "." + member.key()}});
    return found;
  }
  std::vector<Node> each(std::size_t least = 0, std::size_t most = SIZE_MAX) const {
    if (!value_->is_array()) expect("a list");
    const std::size_t count = value_->size();
    if (count < least || count > most) {
      const std::string range = most == least      ? std::to_string(least)
                                : most != SIZE_MAX ? std::to_string(least) + " to " + std::to_string(most)
                                                   : "at least " + std::to_string(least);
      wrong("should have " + range + " items, found " + std::to_string(count));
    }
    std::vector<Node> found;
    for (std::size_t i = 0; i < count; ++i) found.emplace_back((*value_)[i], path_ + "[" + std::to_string(i) + "]");
    return found;
  }

  std::string text() const {
    if (!value_->is_string()) expect("a text");
    return value_->get<std::string>();
  }
  std::string name() const {
    if (text().empty()) expect("a text that is not empty");
    return text();
  }
  std::string choice(std::initializer_list<const char*> choices) const {
    const std::string found = text();
    std::string all;
    for (const char* option : choices) {
      if (found == option) return found;
      all += (all.empty() ? "" : ", ") + std::string(option);
    }
    expect("one of " + all);
  }
  Int integer(Int least = 0) const {  // 2.0 counts as one, as in JSON Schema
    const std::string what =
        "an integer of at least " + std::to_string(least) + " and at most " + std::to_string(max_integer);
    Int found = 0;
    if (value_->is_number_integer()) {
      found = value_->get<Int>();
    } else if (value_->is_number_float()) {
      const double number = value_->get<double>();
      if (std::trunc(number) != number || std::fabs(number) > static_cast<double>(max_integer)) expect(what);
      found = static_cast<Int>(number);
    } else {
      expect(what);
    }
    if (found < least || found > max_integer) expect(what);
    return found;
  }
  Int positive() const { return integer(1); }
  double number() const {
    if (!value_->is_number() || value_->get<double>() < 0) expect("a number of at least 0");
    return value_->get<double>();
  }
  const Json& scalar() const {
    if (value_->is_structured()) expect("a number, a text, true, false or null");
    return *value_;
  }
  std::vector<std::string> names(std::size_t least = 0) const {
    std::vector<std::string> found;
    for (const Node& item : each(least)) found.push_back(item.name());
    return found;
  }
  std::vector<Int> positives(std::size_t least = 0, std::size_t most = SIZE_MAX) const {
    std::vector<Int> found;
    for (const Node& item : each(least, most)) found.push_back(item.positive());
    return found;
  }
  Scalars scalars() const {
    Scalars found;
    for (const auto& [key, node] : items()) found.push_back({key, node.scalar()});
    return found;
  }

 private:
  const Json* value_;
  std::string path_;
};

// ---------------------------------------------------------------- the checksum: SHA-256 of Python's canonical JSON

inline std::string sha256(const std::string& text) {
  static constexpr std::array<std::uint32_t, 64> k = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  std::array<std::uint32_t, 8> h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::string data = text + '\x80';
  while (data.size() % 64 != 56) data += '\0';
  const std::uint64_t bits = std::uint64_t{text.size()} * 8;
  for (int shift = 56; shift >= 0; shift -= 8) data += static_cast<char>((bits >> shift) & 0xFF);
  const auto turn = [](std::uint32_t x, int n) { return (x >> n) | (x << (32 - n)); };
  for (std::size_t start = 0; start < data.size(); start += 64) {
    std::array<std::uint32_t, 64> w{};
    for (std::size_t i = 0; i < 16; ++i)
      for (std::size_t j = 0; j < 4; ++j) w[i] = w[i] << 8 | static_cast<unsigned char>(data[start + 4 * i + j]);
    for (std::size_t i = 16; i < 64; ++i) {
      const std::uint32_t a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >> 3);
      const std::uint32_t b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >> 10);
      w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    auto v = h;
    for (std::size_t i = 0; i < 64; ++i) {
      const std::uint32_t e = turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25);
      const std::uint32_t t = v[7] + e + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
      const std::uint32_t a = turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22);
      const std::uint32_t u = a + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
      v = {t + u, v[0], v[1], v[2], v[3] + t, v[4], v[5], v[6]};
    }
    for (std::size_t i = 0; i < 8; ++i) h[i] += v[i];
  }
  std::string hex;
  for (const std::uint32_t word : h) {
    std::array<char, 9> part{};
    std::snprintf(part.data(), part.size(), "%08x", word);
    hex += part.data();
  }
  return hex;
}

// A double as Python's repr writes it: the shortest digits that read back alike, an exponent below 1e-4 and from 1e16.
inline std::string python_float(double value) {
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  std::string text(buffer.data(), end.ptr);
  const std::string sign = text[0] == '-' ? "-" : "";
  text.erase(0, sign.size());
  const std::size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  std::string digits = text.substr(0, 1) + (e > 2 ? text.substr(2, e - 2) : "");
  if (exponent < -4 || exponent >= 16) {
    const std::string power = std::to_string(std::abs(exponent));
    return sign + digits.substr(0, 1) + (digits.size() > 1 ? "." + digits.substr(1) : "") +
           (exponent < 0 ? "e-" : "e+") + (power.size() < 2 ? "0" : "") + power;
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const std::size_t whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) digits += std::string(whole - digits.size() + 1, '0');
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

inline void canonical(const Json& value, std::string& out) {
  if (value.is_object()) {
    std::map<std::string, const Json*> sorted;  // bytes of UTF-8 sort as code points do
    for (const auto& member : value.items()) sorted[member.key()] = &member.value();
    out += '{';
    for (const auto& [key, member] : sorted) {
      if (out.back() != '{') out += ',';
      canonical(Json(key), out);
      out += ':';
      canonical(*member, out);
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (i > 0) out += ',';
      canonical(value[i], out);
    }
    out += ']';
  } else {
    out += value.is_number_float() ? python_float(value.get<double>()) : value.dump();
  }
}

// ---------------------------------------------------------------- decoding: kernels/tuned/decode.py

inline bool only_digits(const std::string& text) {
  return !text.empty() && text.size() <= 9 && (text.size() == 1 || text[0] != '0') &&
         text.find_first_not_of("0123456789") == std::string::npos;
}

inline std::vector<Int> version(const Node& node, std::size_t parts) {
  std::vector<Int> found;
  std::stringstream stream(node.text() + ".");
  for (std::string part; std::getline(stream, part, '.');) {
    if (!only_digits(part)) break;
    found.push_back(std::stoll(part));
  }
  const std::string text = node.text();
  const auto dots = static_cast<std::size_t>(std::count(text.begin(), text.end(), '.'));
  if (found.size() != parts || dots + 1 != parts)
    node.expect(parts == 3 ? "three numbers with dots" : "two numbers with a dot");
  return found;
}

inline std::string weights(const Node& node) {
  if (node.is_null()) return "";
  static const std::set<std::string> known = {"fp16",      "int8",     "int4/g32", "int4/g64",
                                              "int4/g128", "e0m4/g32", "e0m4/g64", "e0m4/g128"};
  const std::string text = node.text();
  if (known.count(text) == 0)
    node.wrong("is an unknown weight format; choose fp16, int8, int4/gN or e0m4/gN with N = 32, 64 or 128");
  return text;
}

inline Bucket bucket(const Node& node) {
  Bucket found;
  for (const auto& [dim, interval] : node.items()) {
    const auto ends = interval.each(2, 2);
    if (ends[0].is_null()) interval.wrong("has no lower end (only the upper one may be null)");
    Interval within{ends[0].positive(), std::nullopt};
    if (!ends[1].is_null()) {
      const Int high = ends[1].positive();
      if (high < within.low) interval.wrong("ends at " + std::to_string(high) + ", before it begins");
      within.high = high;
    }
    found.push_back({dim, within});
  }
  return found;
}

inline Size size(const Node& node) {
  Size found;
  for (const Node& item : node.each(1)) {
    if (item.value().is_object()) {
      const auto pair = item.at("ceil").each(2, 2);
      const std::string dim = pair[0].name();
      found.push_back({dim, pair[1].positive()});
    } else {
      found.push_back({"", item.positive()});
    }
  }
  return found;
}

inline DTypes dtypes(const Node& node) {
  DTypes found;
  found.act = node.at("act").choice({"fp16", "fp32"});
  found.compute = node.at("compute").choice({"fp32", "fp16", "int8"});
  found.acc = node.at("acc").choice({"fp32", "fp16", "int32"});
  const Node cache = node.at("cache");
  found.cache = cache.is_null() ? "" : cache.choice({"fp16", "int8", "int4"});
  return found;
}

inline std::pair<Int, Int> pair_of(const Node& node) {
  const auto both = node.positives(2, 2);
  return {both[0], both[1]};
}

inline Device device(const Node& node) {
  Device d;
  const Node limits = node.at("capabilities");
  d.vendor = node.at("vendor").name();
  d.family = node.at("family").name();
  d.model = node.at("model").name();
  d.driver = node.at("driver").text();
  d.compiler = node.at("compiler").text();
  for (const auto& [key, raw] : node.at("raw").items()) raw.text();
  d.kind = limits.at("kind").choice({"gpu", "cpu", "other"});
  d.max_work_item_sizes = limits.at("max_work_item_sizes").positives(1);
  if (const Node image = limits.at("image2d"); !image.is_null()) d.image2d = pair_of(image);
  d.subgroup_sizes = limits.at("subgroup_sizes").positives();
  for (const std::string& name : limits.at("extensions").names()) d.extensions.insert(name);
  for (const Node& part : limits.at("opencl_c").each(2, 2)) d.opencl_c.push_back(part.integer());
  d.vector_floats = limits.has("vector_floats") ? limits.at("vector_floats").integer() : 0;
  d.max_work_group = limits.at("max_work_group").integer();
  d.local_bytes = limits.at("local_bytes").integer();
  d.max_alloc_bytes = limits.at("max_alloc_bytes").integer();
  d.global_bytes = limits.at("global_bytes").integer();
  d.compute_units = limits.at("compute_units").integer();
  d.cache_bytes = limits.at("cache_bytes").integer();
  d.image_pitch_texels = limits.at("image_pitch_texels").integer();
  d.image_base_texels = limits.at("image_base_texels").integer();
  return d;
}

inline Launch launch(const Node& node) {
  Launch found;
  found.entry = node.at("entry").name();
  for (const Node& item : node.at("grid").each(1, 3)) found.grid.push_back(size(item));
  if (const Node local = node.at("local"); !local.is_null()) {
    found.local = local.positives(1, 3);
    if (found.local.size() != found.grid.size())
      local.wrong("has " + std::to_string(found.local.size()) + " dimensions, the grid has " +
                  std::to_string(found.grid.size()));
  }
  for (const Node& item : node.at("args").each()) {
    if (item.value().is_string()) {
      found.args.push_back({item.name(), std::nullopt});
      continue;
    }
    const Node image = item.at("image");
    ImageView view{image.at("of").name(), image.at("channels").choice({"R", "RG", "RGBA"}),
                   image.at("type").choice({"uint32", "uint16", "fp16", "fp32"}), size(image.at("width")),
                   size(image.at("height"))};
    found.args.push_back({"", std::move(view)});
  }
  return found;
}

inline void verification(const Node& node) {
  node.at("metric").name();
  const double value = node.at("value").number(), limit = node.at("limit").number();
  node.at("shapes").names(1);
  const Node where = node.at("proven_on");
  where.at("device").name();
  where.at("half").choice({"native", "emulated"});
  if (const Node subgroup = where.at("subgroup"); !subgroup.is_null()) subgroup.positive();
  if (value > limit) node.at("value").wrong("is beyond its limit: the entry is not proven");
}

inline void stats(const Node& node, Entry& entry) {
  const auto ends = node.at("interval_ns").each(2, 2);
  if (ends[0].number() > ends[1].number()) node.at("interval_ns").wrong("ends before it begins");
  entry.median_ns = node.at("median_ns").number();
  for (const char* name : {"default_ns", "driver_local_ns", "percent_of_limit"})
    if (const Node number = node.at(name); !number.is_null()) number.number();
  if (const Node by = node.at("limited_by"); !by.is_null()) by.name();
  if (node.has("regret")) node.at("regret").number();
}

// `proven`: an entry of a document, which tells how it was measured or predicted; a built-in one does not.
inline Entry entry(const Node& node, bool proven = true) {
  Entry found;
  if (proven) {
    found.measured = node.at("evidence").choice({"measured", "predicted"}) == "measured";
    const Node measured = node.at("stats"), predicted = node.at("prediction");
    if (!measured.is_null()) stats(measured, found);
    if (!predicted.is_null()) {
      predicted.at("ns").number();
      predicted.at("limited_by").name();
      predicted.at("model_version").name();
    }
    if (measured.is_null() == predicted.is_null())
      node.wrong(measured.is_null() ? "has neither stats nor prediction, where exactly one is right"
                                    : "has both stats and prediction, where exactly one is right");
    if (found.measured == measured.is_null())
      node.at("evidence").wrong("does not go with what is there of stats and prediction");
    verification(node.at("verification"));
  }
  found.id = node.at("id").name();
  const Node match = node.at("match"), needs = node.at("needs");
  found.match = {weights(match.at("weights")), dtypes(match.at("dtypes")), match.at("options").scalars()};
  if (const Node sizes = node.at("bucket"); !sizes.is_null()) found.bucket = bucket(sizes);
  found.variant = node.at("variant").name();
  found.params = node.at("params").scalars();
  found.source_sha256 = node.at("source_sha256").text();
  if (found.source_sha256.size() != 64 ||
      found.source_sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
    node.at("source_sha256").expect("64 hexadecimal digits");
  found.build_options = node.at("build_options").names();
  for (const Node& item : node.at("launches").each(1)) found.launches.push_back(launch(item));
  for (const Node& item : node.at("scratch").each())
    found.scratch.push_back({item.at("name").name(), size(item.at("bytes"))});
  for (const auto& [tensor, layout] : node.at("layout").items()) found.layout.push_back({tensor, layout.name()});
  found.needs.work_group = needs.at("work_group").positive();
  found.needs.local_bytes = needs.at("local_bytes").integer();
  found.needs.extensions = needs.at("extensions").names();
  if (const Node image = needs.at("image2d"); !image.is_null()) pair_of(image);
  for (const auto& [dim, step] : needs.at("multiple_of").items())
    found.needs.multiple_of.push_back({dim, step.positive()});
  found.alternates = node.at("alternates").names();
  return found;
}

inline void compiler_bound(const Node& node) {
  const std::string text = node.text();
  std::size_t at = text.compare(0, 2, ">=") == 0 || text.compare(0, 2, "<=") == 0 || text.compare(0, 2, "==") == 0 ? 2
                   : !text.empty() && (text[0] == '<' || text[0] == '>')                                           ? 1
                                                                                                                   : 0;
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '-'; };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  bool good = at > 0;
  while (at < text.size() && letter(text[at])) ++at;
  good = good && at < text.size() && digit(text[at]);
  for (; at < text.size(); ++at) good = good && (letter(text[at]) || digit(text[at]) || text[at] == '_');
  if (!good) node.expect("a comparison like >=E031.38");
}

inline std::vector<Arg> abi_args(const Node& node) {
  std::vector<Arg> found;
  for (const Node& item : node.each()) {
    const std::string role = item.at("role").choice({"input", "weight", "cache", "output", "inout", "dim"});
    found.push_back({item.at("name").name(), role});
    item.at("about").text();
  }
  return found;
}

inline Section section(const Node& node) {
  Section found;
  found.abi_version = node.at("abi").at("version").positive();
  found.args = abi_args(node.at("abi").at("args"));
  for (const Node& item : node.at("entries").each(1)) found.entries.push_back(entry(item));
  found.default_id = node.at("default").name();
  for (const Node& item : node.at("deny").each()) {
    Deny rule{item.at("params").scalars(), {}, item.at("why").name()};
    for (const Node& bound : item.at("compiler").each()) {
      compiler_bound(bound);
      rule.compiler.push_back(bound.text());
    }
    found.deny.push_back(std::move(rule));
  }
  if (node.has("programs")) {
    const Node programs = node.at("programs");
    programs.at("most").positive();
    programs.at("count").positive();
    programs.at("worst_regret").number();
    programs.at("mean_regret").number();
  }
  return found;
}

inline Document decode(const Node& root) {
  if (const Node format = root.at("format"); format.value() != Json("kiln-tuned-config"))
    throw Error("$.format should be \"kiln-tuned-config\"; give a document that Kiln wrote");
  const auto schema = version(root.at("schema_version"), 3);
  if (schema[0] != 1)
    throw Error("$.schema_version is " + root.at("schema_version").text() +
                ", and this reader understands 1.x; use the Kiln that wrote it, or tune again");
  const auto least = version(root.at("min_reader"), 2);
  if (std::pair(least[0], least[1]) > std::pair<Int, Int>(1, 0))
    throw Error("$.min_reader is " + root.at("min_reader").text() +
                ", and this reader is 1.0; update Kiln, or tune again");
  Document found;
  found.device = device(root.at("device"));
  root.at("protocol").items();
  root.at("provenance").items();
  for (const auto& [op, routes] : root.at("ops").items()) {
    auto& list = found.ops[op];
    for (const Node& item : routes.each())
      list.push_back({item.at("kernel").name(), weights(item.at("weights")), bucket(item.at("bucket"))});
  }
  for (const auto& [name, kernel] : root.at("kernels").items()) found.kernels[name] = section(kernel);
  if (found.kernels.empty()) root.at("kernels").wrong("has no kernel");
  found.measured = true;
  for (const auto& item : found.kernels)
    for (const Entry& each : item.second.entries) found.measured = found.measured && each.measured;
  if ((root.at("evidence").choice({"measured", "predicted"}) == "measured") != found.measured)
    root.at("evidence")
        .wrong(std::string("is not what the entries are: ") + (found.measured ? "measured" : "predicted"));
  return found;
}

// ---------------------------------------------------------------- relations: kernels/tuned/check.py

// Equal as Python's == sees it: true is 1, 2.0 is 2.
inline bool same(const Json& one, const Json& other) {
  const auto number = [](const Json& value) {
    return value.is_boolean() ? Json(value.get<bool>() ? Int{1} : Int{0}) : value;
  };
  const Json a = number(one), b = number(other);
  if (!a.is_number() || !b.is_number()) return a == b;
  if (a.is_number_float() == b.is_number_float()) return a == b;
  const double real = (a.is_number_float() ? a : b).get<double>();
  const Int whole = (a.is_number_float() ? b : a).get<Int>();
  return std::trunc(real) == real && real >= -0x1p63 && real < 0x1p63 && static_cast<Int>(real) == whole;
}

inline const Json* lookup(const Scalars& values, const std::string& name) {
  for (const auto& [key, value] : values)
    if (key == name) return &value;
  return nullptr;
}

inline bool same(const Match& one, const Match& other) {
  if (one.weights != other.weights || !(one.dtypes == other.dtypes) || one.options.size() != other.options.size())
    return false;
  return std::all_of(one.options.begin(), one.options.end(), [&](const auto& option) {
    const Json* value = lookup(other.options, option.first);
    return value != nullptr && same(option.second, *value);
  });
}

inline const Interval* side(const Bucket& bucket, const std::string& dim) {
  for (const auto& [name, interval] : bucket)
    if (name == dim) return &interval;
  return nullptr;
}

inline bool overlap(const Bucket& one, const Bucket& other) {
  return std::all_of(one.begin(), one.end(), [&](const auto& item) {
    const Interval* theirs = side(other, item.first);
    return theirs == nullptr || ((!item.second.high || theirs->low <= *item.second.high) &&
                                 (!theirs->high || item.second.low <= *theirs->high));
  });
}

// Volumes of many dims pass 64 bits, so that they are counted in as many limbs of 32 bits as they need.
class Volume {
 public:
  explicit Volume(std::uint32_t value = 0) : limbs_{value} {}
  Volume& operator*=(std::uint64_t factor) {
    Volume high = *this;
    scale(static_cast<std::uint32_t>(factor));
    high.scale(static_cast<std::uint32_t>(factor >> 32));
    high.limbs_.insert(high.limbs_.begin(), 0);
    return *this += high;
  }
  Volume& operator+=(const Volume& other) {
    std::uint64_t carry = 0;
    for (std::size_t i = 0; i < std::max(limbs_.size(), other.limbs_.size()) || carry != 0; ++i) {
      if (i == limbs_.size()) limbs_.push_back(0);
      carry += std::uint64_t{limbs_[i]} + (i < other.limbs_.size() ? other.limbs_[i] : 0);
      limbs_[i] = static_cast<std::uint32_t>(carry);
      carry >>= 32;
    }
    return *this;
  }
  bool operator==(const Volume& other) const {
    for (std::size_t i = 0; i < std::max(limbs_.size(), other.limbs_.size()); ++i)
      if ((i < limbs_.size() ? limbs_[i] : 0) != (i < other.limbs_.size() ? other.limbs_[i] : 0)) return false;
    return true;
  }

 private:
  std::vector<std::uint32_t> limbs_;  // lowest first
  void scale(std::uint32_t factor) {
    std::uint64_t carry = 0;
    for (std::uint32_t& limb : limbs_) {
      carry += std::uint64_t{limb} * factor;
      limb = static_cast<std::uint32_t>(carry);
      carry >>= 32;
    }
    if (carry != 0) limbs_.push_back(static_cast<std::uint32_t>(carry));
  }
};

inline std::uint64_t past(const Interval& interval) {  // the first size beyond it
  return interval.high ? static_cast<std::uint64_t>(*interval.high) + 1 : std::uint64_t{1} << 62;
}

inline void check_tiling(const std::string& where, const std::vector<const Entry*>& entries) {
  const Bucket& first = *entries.front()->bucket;
  for (const Entry* item : entries) {
    const bool alike =
        item->bucket->size() == first.size() &&
        std::all_of(first.begin(), first.end(), [&](const auto& d) { return side(*item->bucket, d.first); });
    if (!alike)
      throw Error(where + " has entries \"" + entries.front()->id + "\" and \"" + item->id +
                  "\" with buckets in different dims" + again);
  }
  for (std::size_t i = 0; i < entries.size(); ++i)
    for (std::size_t j = i + 1; j < entries.size(); ++j)
      if (overlap(*entries[i]->bucket, *entries[j]->bucket))
        throw Error(where + " has overlapping buckets: entries \"" + entries[i]->id + "\" and \"" + entries[j]->id +
                    "\"" + again);
  Volume whole(1), filled(0);
  for (const auto& dim : first) {
    std::uint64_t low = UINT64_MAX, high = 0;
    for (const Entry* item : entries) {
      low = std::min(low, static_cast<std::uint64_t>(side(*item->bucket, dim.first)->low));
      high = std::max(high, past(*side(*item->bucket, dim.first)));
    }
    whole *= high - low;
  }
  for (const Entry* item : entries) {
    Volume volume(1);
    for (const auto& dim : *item->bucket) volume *= past(dim.second) - static_cast<std::uint64_t>(dim.second.low);
    filled += volume;
  }
  if (!(filled == whole))  // none overlap, so that volumes add up
    throw Error(where + " leaves a gap between the buckets of entries \"" + entries.front()->id + "\" to \"" +
                entries.back()->id + "\"" + again);
}

inline void check_names(const std::string& where, const Section& section, const Entry& entry) {
  std::set<std::string> dims, buffers;
  for (const Arg& arg : section.args)
    if (arg.role == "dim") dims.insert(arg.name);
  for (const Arg& arg : section.args)
    if (dims.count(arg.name) == 0) buffers.insert(arg.name);
  std::vector<const Size*> sizes;
  for (const Scratch& scratch : entry.scratch) {
    buffers.insert(scratch.name);
    sizes.push_back(&scratch.bytes);
  }
  for (const Launch& launch : entry.launches) {
    for (const Size& grid : launch.grid) sizes.push_back(&grid);
    for (const Argument& arg : launch.args) {
      const std::string& passed = arg.image ? arg.image->of : arg.name;
      if (buffers.count(passed) == 0 && (arg.image || dims.count(passed) == 0))
        throw Error(where + " passes " + passed + ", which is neither an argument nor scratch" + again);
      if (arg.image) sizes.insert(sizes.end(), {&arg.image->width, &arg.image->height});
    }
  }
  const auto known = [&](const std::string& what, const std::string& dim) {
    if (dims.count(dim) == 0)
      throw Error(where + " has " + what + " in " + dim + ", which is no dim of the kernel" + again);
  };
  for (const Size* item : sizes)
    for (const Factor& factor : *item)
      if (!factor.dim.empty()) known("a size", factor.dim);
  if (entry.bucket)
    for (const auto& item : *entry.bucket) known("its bucket", item.first);
  for (const auto& item : entry.needs.multiple_of) known("its needs", item.first);
}

inline const Entry* by_id(const Section& section, const std::string& id) {
  for (const Entry& entry : section.entries)
    if (entry.id == id) return &entry;
  return nullptr;
}

inline void check(const Document& document) {
  for (const auto& [name, section] : document.kernels) {
    const std::string kernel = "kernel " + name;
    std::map<std::string, const Entry*> entries;
    for (const Entry& entry : section.entries)
      if (!entries.insert({entry.id, &entry}).second)
        throw Error(kernel + " has two entries with the id \"" + entry.id + "\"" + again);
    if (entries.count(section.default_id) == 0)
      throw Error(kernel + " names \"" + section.default_id + "\" as default, which is no entry's id" + again);
    std::vector<std::vector<const Entry*>> groups;  // of one match
    for (const Entry& entry : section.entries) {
      const std::string where = kernel + ", entry \"" + entry.id + "\"";
      for (const std::string& other : entry.alternates) {
        const auto found = entries.find(other);
        if (found == entries.end() || other == entry.id)
          throw Error(where + " has the alternate \"" + other + "\", which is no other entry" + again);
        if (!same(found->second->match, entry.match))
          throw Error(where + " has the alternate \"" + other + "\", which is for other jobs" + again);
      }
      check_names(where, section, entry);
      if (!entry.bucket) continue;
      const auto group = std::find_if(groups.begin(), groups.end(),
                                      [&](const auto& g) { return same(g.front()->match, entry.match); });
      if (group == groups.end())
        groups.push_back({&entry});
      else
        group->push_back(&entry);
    }
    for (const auto& group : groups) check_tiling(kernel, group);
  }
  for (const auto& [op, routes] : document.ops) {
    for (const Route& route : routes)
      if (document.kernels.count(route.kernel) == 0)
        throw Error("op " + op + " routes to \"" + route.kernel + "\", which the document has no kernel for" + again);
    for (std::size_t i = 0; i < routes.size(); ++i)
      for (std::size_t j = i + 1; j < routes.size(); ++j) {
        const bool meet =
            routes[i].weights == routes[j].weights || routes[i].weights.empty() || routes[j].weights.empty();
        if (meet && overlap(routes[i].bucket, routes[j].bucket))
          throw Error("op " + op + " has routes " + std::to_string(i) + " and " + std::to_string(j) +
                      " for the same sizes" + again);
      }
  }
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  if (!file || !(content << file.rdbuf())) throw Error(path + " cannot be read; check the path and its permissions");
  return content.str();
}

}  // namespace detail

// A tuned config from its text. Throws Error where it is not whole, not ours, too new or breaks a rule of the format.
inline Document loads(const std::string& text) {
  Json json = detail::parse(text);
  Document found = detail::decode(detail::Node(json, "$"));
  detail::check(found);
  const std::string given = detail::Node(json, "$").at("content_sha256").text();
  json.erase("content_sha256");
  std::string canonical;
  detail::canonical(json, canonical);
  found.edited = given != detail::sha256(canonical);
  return found;
}

// ---------------------------------------------------------------- sizes

// The number that a size stands for: integers and ceil(dim / by) multiplied. Throws Error beyond 63 bits.
inline Int evaluate(const Size& size, const Dims& dims) {
  Int total = 1;
  for (const Factor& factor : size) {
    Int value = factor.by;
    if (!factor.dim.empty()) {
      const auto dim = dims.find(factor.dim);
      if (dim == dims.end()) throw Error("a size needs " + factor.dim + ", which the workload does not give; give it");
      value = dim->second / factor.by + (dim->second % factor.by > 0 ? 1 : 0);
    }
    if (__builtin_mul_overflow(total, value, &total))
      throw Error("a size is beyond 64 bits at these dims; ask for smaller ones");
  }
  return total;
}

// Work-items of a launch by dimension: a multiple of `launch.local`.
inline std::vector<Int> grid(const Launch& launch, const Dims& dims) {
  std::vector<Int> found;
  for (const Size& size : launch.grid) found.push_back(evaluate(size, dims));
  return found;
}

// ---------------------------------------------------------------- bundles

struct Family {  // what Kiln knows of a family beyond the document
  Int abi_version = 0;
  std::vector<Arg> args;
  std::vector<std::string> dims, fixed;          // fixed: matched exactly, among the options
  std::map<std::string, Entry> built_in;         // by id
  std::vector<std::pair<Match, Json>> defaults;  // of each match, the tree whose leaves are ids of `built_in`
};

struct Bundle {
  Document document;
  std::map<std::string, Family> families;
  std::map<std::string, std::string> sources;  // path by SHA-256

  // The OpenCL C that an entry names. Throws Error where the file is not what was bundled.
  std::string source(const Entry& entry) const {
    const auto path = sources.find(entry.source_sha256);
    if (path == sources.end())
      throw Error("entry " + entry.id + " names a source that is not in the bundle; bundle again");
    std::string text = detail::read_file(path->second);
    if (detail::sha256(text) != entry.source_sha256)
      throw Error(path->second + " was changed since it was bundled; bundle again");
    return text;
  }
};

// A document alone: it has neither sources nor built-in defaults nor the rules that only a bundle tells.
inline Bundle load_document(const std::string& path) {
  try {
    return {loads(detail::read_file(path)), {}, {}};
  } catch (const Error& error) {
    const std::string what = error.what();
    throw Error(what.compare(0, path.size(), path) == 0 ? what : path + ": " + what);
  }
}

namespace detail {

// The rules that numbers name in the family's list.
inline std::vector<Rule> rules(const Node& numbers, const Node& list) {
  const std::vector<Node> all = list.each();
  std::vector<Rule> found;
  for (const Node& number : numbers.each()) {
    const auto at = static_cast<std::size_t>(number.integer());
    if (at >= all.size()) number.wrong("names no rule");
    all[at].at("tree").each(1);
    found.push_back({all[at].at("why").name(), all[at].at("tree").value()});
  }
  return found;
}

inline Family family(const Node& node) {
  Family found;
  found.abi_version = node.at("abi").at("version").positive();
  found.args = abi_args(node.at("abi").at("args"));
  found.dims = node.at("dims").names(1);
  found.fixed = node.at("fixed").names();
  for (const Node& item : node.at("built_in").each()) {
    Entry built = entry(item.at("entry"), false);
    built.rules = rules(item.at("rules"), node.at("rules"));
    found.built_in[built.id] = std::move(built);
  }
  for (const Node& item : node.at("defaults").each()) {
    const Node match = item.at("match");
    item.at("tree").each(1);
    found.defaults.push_back({{weights(match.at("weights")), dtypes(match.at("dtypes")), match.at("options").scalars()},
                              item.at("tree").value()});
  }
  return found;
}

inline std::string within(const std::string& folder, const Node& file) {
  const std::string name = file.name();
  if (name[0] == '/' || name.find("..") != std::string::npos) file.wrong("leads out of the bundle");
  return folder + "/" + name;
}

inline void fill(Bundle& bundle, const Node& root, const std::string& folder) {
  if (root.at("format").value() != Json("kiln-bundle")) root.at("format").wrong("should be \"kiln-bundle\"");
  if (root.at("version").integer() != 1)
    throw Error("$.version is not 1, which this loader reads; take the loader of the Kiln that bundled it");
  for (const Node& item : root.at("sources").each()) {
    bundle.sources[item.at("sha256").name()] = within(folder, item.at("file"));
  }
  for (const auto& [name, item] : root.at("families").items()) {
    bundle.families[name] = family(item);
    const auto section = bundle.document.kernels.find(name);
    if (section == bundle.document.kernels.end()) item.wrong("is no kernel of the document");
    const Node by_entry = item.at("entry_rules");
    for (Entry& entry : section->second.entries) entry.rules = rules(by_entry.at(entry.id), item.at("rules"));
  }
  for (const auto& [name, section] : bundle.document.kernels) {
    root.at("families").at(name);
    for (const Entry& entry : section.entries)
      if (bundle.sources.count(entry.source_sha256) == 0)
        root.at("sources").wrong("lacks the source of entry " + entry.id);
  }
}

}  // namespace detail

// A folder that `python -m tuner bundle` made. Throws Error where a file is missing or not what was bundled.
inline Bundle load_bundle(const std::string& folder) {
  const std::string manifest = folder + "/bundle.json";
  const std::string text = detail::read_file(manifest);
  try {
    const Json json = detail::parse(text);
    const detail::Node root(json, "$");
    const std::string path = detail::within(folder, root.at("document").at("file"));
    Bundle bundle = load_document(path);
    if (detail::sha256(detail::read_file(path)) != root.at("document").at("sha256").text())
      throw Error(path + " is not the document that was bundled; bundle again");
    detail::fill(bundle, root, folder);
    return bundle;
  } catch (const Error& error) {
    throw Error(manifest + ": " + error.what());
  }
}

// ---------------------------------------------------------------- rules: trees of comparisons over dims and device

namespace detail {

__extension__ typedef __int128 Wide;  // products of three sizes pass 64 bits

struct Number {
  bool real = false;
  Wide whole = 0;
  double value = 0;
  double as_real() const { return real ? value : static_cast<double>(whole); }
};

[[noreturn]] inline void bad_rule() {
  throw Error("the bundle holds a rule that this loader does not know; take the loader of the Kiln that bundled it");
}

inline Int device_number(const std::string& name, const Device& d) {
  static const std::map<std::string, Int Device::*> fields = {{"max_work_group", &Device::max_work_group},
                                                              {"local_bytes", &Device::local_bytes},
                                                              {"max_alloc_bytes", &Device::max_alloc_bytes},
                                                              {"global_bytes", &Device::global_bytes},
                                                              {"compute_units", &Device::compute_units},
                                                              {"cache_bytes", &Device::cache_bytes},
                                                              {"image_pitch_texels", &Device::image_pitch_texels},
                                                              {"image_base_texels", &Device::image_base_texels},
                                                              {"vector_floats", &Device::vector_floats}};
  if (const auto field = fields.find(name); field != fields.end()) return d.*(field->second);
  for (std::size_t i = 0; i < 3; ++i)
    if (name == "max_work_item_sizes[" + std::to_string(i) + "]")
      return i < d.max_work_item_sizes.size() ? d.max_work_item_sizes[i] : 0;
  if (name == "image2d[0]") return d.image2d ? d.image2d->first : 0;
  if (name == "image2d[1]") return d.image2d ? d.image2d->second : 0;
  bad_rule();
}

inline Number number_of(const Json& expression, const Dims& dims, const Device& device) {
  if (expression.is_number_integer()) return {false, expression.get<Int>(), 0};
  if (expression.is_number_float()) return {true, 0, expression.get<double>()};
  if (expression.is_string()) {
    const auto dim = dims.find(expression.get<std::string>());
    return {false, dim != dims.end() ? dim->second : device_number(expression.get<std::string>(), device), 0};
  }
  if (!expression.is_array() || expression.size() != 3 || !expression[0].is_string()) bad_rule();
  const std::string op = expression[0].get<std::string>();
  const Number a = number_of(expression[1], dims, device), b = number_of(expression[2], dims, device);
  if (a.real || b.real || op == "/") {
    const double x = a.as_real(), y = b.as_real();
    if (op == "+") return {true, 0, x + y};
    if (op == "-") return {true, 0, x - y};
    if (op == "*") return {true, 0, x * y};
    if (op == "/" && y != 0) return {true, 0, x / y};
    bad_rule();
  }
  Number result;
  bool far = false;
  if (op == "+")
    far = __builtin_add_overflow(a.whole, b.whole, &result.whole);
  else if (op == "-")
    far = __builtin_sub_overflow(a.whole, b.whole, &result.whole);
  else if (op == "*")
    far = __builtin_mul_overflow(a.whole, b.whole, &result.whole);
  else if ((op == "//" || op == "%") && b.whole > 0) {  // rounded down, as Python does
    const Wide rest = ((a.whole % b.whole) + b.whole) % b.whole;
    result.whole = op == "%" ? rest : (a.whole - rest) / b.whole;
  } else
    bad_rule();
  if (far) throw Error("a rule's numbers pass 128 bits at these dims; ask for smaller ones");
  return result;
}

inline bool condition(const Json& test, const Dims& dims, const Device& device) {
  if (!test.is_array() || test.empty() || !test[0].is_string()) bad_rule();
  const std::string op = test[0].get<std::string>();
  if (op == "kind" && test.size() == 2) return Json(device.kind) == test[1];
  if (op == "has" && test.size() == 2 && test[1].is_string())
    return device.extensions.count(test[1].get<std::string>()) > 0;
  if (op == "subgroups") return !device.subgroup_sizes.empty();
  if (op == "subgroup" && test.size() == 2)
    return std::any_of(device.subgroup_sizes.begin(), device.subgroup_sizes.end(),
                       [&](Int width) { return test[1] == Json(width); });
  if (op == "opencl_c" && test.size() == 3 && test[1].is_number_integer() && test[2].is_number_integer())
    return device.opencl_c >= std::vector<Int>{test[1].get<Int>(), test[2].get<Int>()};
  if (test.size() != 3) bad_rule();
  const Number a = number_of(test[1], dims, device), b = number_of(test[2], dims, device);
  const bool real = a.real || b.real;
  const int order =
      real ? (a.as_real() > b.as_real()) - (a.as_real() < b.as_real()) : (a.whole > b.whole) - (a.whole < b.whole);
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  if (op == ">=") return order >= 0;
  if (op == "==") return order == 0;
  if (op == "!=") return order != 0;
  bad_rule();
}

// The leaf that a tree leads to. A node is [condition, then, else]; an integer there is a later node, all else a leaf.
inline const Json& leaf(const Json& tree, const Dims& dims, const Device& device) {
  std::size_t at = 0;
  for (;;) {
    const Json& node = tree[at];
    if (!node.is_array()) return node;
    if (node.size() != 3) bad_rule();
    const Json& next = node[condition(node[0], dims, device) ? 1 : 2];
    if (!next.is_number_integer()) return next;
    const Int index = next.get<Int>();
    if (index <= static_cast<Int>(at) || index >= static_cast<Int>(tree.size())) bad_rule();
    at = static_cast<std::size_t>(index);
  }
}

// ---------------------------------------------------------------- reasons against an entry: kernels/fit.py

// Letters in front, lower-cased, and the numbers, each without leading zeros so that longer means larger.
inline std::pair<std::string, std::vector<std::string>> compiler_version(const std::string& text) {
  std::pair<std::string, std::vector<std::string>> found;
  std::size_t at = 0;
  const auto lower = [](char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); };
  while (at < text.size() && lower(text[at]) >= 'a' && lower(text[at]) <= 'z') found.first += lower(text[at++]);
  for (bool within = false; at < text.size(); ++at) {
    const bool digit = text[at] >= '0' && text[at] <= '9';
    if (digit && !within) found.second.emplace_back();
    if (digit && (text[at] != '0' || !found.second.back().empty())) found.second.back() += text[at];
    within = digit;
  }
  return found;
}

inline bool compiler_meets(const std::string& bound, const std::string& compiler) {
  const std::size_t length = bound.size() > 1 && bound[1] == '=' ? 2 : 1;
  const std::string op = bound.substr(0, length);
  const auto [series, limit] = compiler_version(bound.substr(length));
  auto [theirs, found] = compiler_version(compiler);
  if (series != theirs) return false;
  found.resize(limit.size());
  int order = 0;
  for (std::size_t i = 0; i < limit.size() && order == 0; ++i) {
    const auto key = [](const std::string& digits) { return std::pair(digits.size(), digits); };
    order = (key(found[i]) > key(limit[i])) - (key(found[i]) < key(limit[i]));
  }
  return op == ">="   ? order >= 0
         : op == "<=" ? order <= 0
         : op == "==" ? order == 0
         : op == "<"  ? order < 0
                      : order > 0;
}

inline bool denied(const Deny& rule, const Entry& entry, const std::string& compiler) {
  for (const auto& [name, value] : rule.params) {
    const Json* found = lookup(entry.params, name);
    const Json variant(entry.variant);
    if (found == nullptr && name == "variant") found = &variant;
    if (found == nullptr || !same(*found, value)) return false;
  }
  return compiler.empty() ||  // an unknown compiler may be a bad one
         std::all_of(rule.compiler.begin(), rule.compiler.end(),
                     [&](const auto& bound) { return compiler_meets(bound, compiler); });
}

inline std::string lacking_image(const ImageView& view, const Dims& dims, const Device& device) {
  const Int width = evaluate(view.width, dims), height = evaluate(view.height, dims);
  if (!device.image2d || device.image_pitch_texels == 0) return "needs images over buffers, which the device has not";
  if (width > device.image2d->first || height > device.image2d->second)
    return "needs an image of " + std::to_string(width) + " by " + std::to_string(height) +
           ", beyond the device's largest";
  if (width % device.image_pitch_texels != 0)
    return "needs image rows of " + std::to_string(width) + " texels, which are no whole pitches";
  return "";
}

inline std::string lacking(const Entry& entry, const Dims& dims, const Device& device) {
  const Needs& needs = entry.needs;
  if (needs.work_group > device.max_work_group) return "needs work-groups of " + std::to_string(needs.work_group);
  if (needs.local_bytes > device.local_bytes)
    return "needs " + std::to_string(needs.local_bytes) + " bytes of local memory";
  for (const std::string& name : needs.extensions)
    if (device.extensions.count(name) == 0) return "needs " + name + ", which the device has not";
  for (const auto& [dim, step] : needs.multiple_of)
    if (dims.at(dim) % step != 0) return "needs " + dim + " to be a multiple of " + std::to_string(step);
  for (const Launch& launch : entry.launches) {
    Wide work_items = 1;  // three factors below 2^53 each pass 128 bits only beyond the first test
    for (std::size_t i = 0; i < launch.local.size(); ++i) {
      work_items *= launch.local[i];
      const bool wide = i < device.max_work_item_sizes.size() && launch.local[i] > device.max_work_item_sizes[i];
      if (work_items > device.max_work_group || wide)
        return "work-groups of launch " + launch.entry + " are too large for the device";
    }
    const std::vector<Int> global = grid(launch, dims);
    for (std::size_t i = 0; i < launch.local.size(); ++i)
      if (global[i] % launch.local[i] != 0)
        return "its grid is no multiple of its work-group at these sizes (launch " + launch.entry + ")";
    for (const Argument& arg : launch.args)
      if (const std::string why = arg.image ? lacking_image(*arg.image, dims, device) : ""; !why.empty()) return why;
  }
  for (const Scratch& scratch : entry.scratch) evaluate(scratch.bytes, dims);
  return "";
}

inline std::string broken_rule(const Entry& entry, const Dims& dims, const Device& device) {
  for (const Rule& rule : entry.rules)
    if (leaf(rule.tree, dims, device) != Json(true)) return "its rule \"" + rule.why + "\" does not hold here";
  return "";
}

inline std::string reason_against(const Entry& entry, const Section& section, const Dims& dims, const Device& device,
                                  bool predicted) {
  if (!entry.measured && !predicted) return "it is predicted, not measured, and predictions were not asked for";
  for (const Deny& rule : section.deny)
    if (denied(rule, entry, device.compiler)) return "denied on this compiler: " + rule.why;
  try {
    const std::string why = lacking(entry, dims, device);
    return why.empty() ? broken_rule(entry, dims, device) : why;
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace detail

// ---------------------------------------------------------------- selection: kernels/select.py

enum class Level { exact, stale, family, vendor, built_in };

inline const char* name_of(Level level) {
  static constexpr std::array<const char*, 5> names = {"exact", "stale", "family", "vendor", "built-in"};
  return names[static_cast<std::size_t>(level)];
}

struct Selection {
  const Entry* entry = nullptr;
  const Bundle* bundle = nullptr;  // that it came from
  Level level = Level::built_in;
  std::string how;                 // how its sizes fit
  std::vector<std::string> notes;  // every step that led there
};

// An engine's own reason against an entry, "" = none: a build that fails, arguments that it does not bind.
using Veto = std::function<std::string(const Bundle&, const Entry&)>;

struct Ask {
  bool predicted = false;  // admit entries that nobody measured
  Int abi_version = 0;     // that the engine binds; 0 = the bundle's
  Veto veto;
};

namespace detail {

constexpr double max_distance = 3.0;  // a bucket further off than a factor of eight in sizes, summed over dims
constexpr double max_unlike = 4.0;    // devices of one family that differ by more are only of one vendor

inline double unlike(const Device& one, const Device& other) {
  const auto widest = [](const Device& d) {
    return d.subgroup_sizes.empty() ? Int{1} : *std::max_element(d.subgroup_sizes.begin(), d.subgroup_sizes.end());
  };
  const std::array<std::pair<Int, Int>, 4> pairs = {{{one.compute_units, other.compute_units},
                                                     {one.local_bytes, other.local_bytes},
                                                     {one.max_work_group, other.max_work_group},
                                                     {widest(one), widest(other)}}};
  double total = 0;
  for (const auto& [a, b] : pairs)
    total += std::fabs(std::log2(static_cast<double>(std::max<Int>(a, 1)) / static_cast<double>(std::max<Int>(b, 1))));
  return total;
}

inline Level level_of(const Document& document, const Device& device, double difference) {
  const Device& theirs = document.device;
  if (theirs.vendor != device.vendor) return Level::built_in;
  if (theirs.model == device.model && theirs.family == device.family)
    return theirs.driver == device.driver && theirs.compiler == device.compiler && !document.edited ? Level::exact
                                                                                                    : Level::stale;
  return theirs.family == device.family && difference <= max_unlike ? Level::family : Level::vendor;
}

inline double distance(const Bucket& bucket, const Dims& dims) {
  double total = 0;
  for (const auto& [dim, interval] : bucket) {
    const Int size = dims.at(dim);
    if (size < interval.low)
      total += std::log2(static_cast<double>(interval.low) / static_cast<double>(size));
    else if (interval.high && size > *interval.high)
      total += std::log2(static_cast<double>(size) / static_cast<double>(*interval.high));
  }
  return total;
}

inline bool same_regime(const Bucket& bucket,
                        const Dims& dims) {  // 1 row, 2 to 16, 17 and more lend nothing to each other
  const Interval* rows = side(bucket, "M");
  if (rows == nullptr) return true;
  const Int m = dims.at("M"), first = m <= 1 ? 1 : m <= 16 ? 2 : 17;
  const std::optional<Int> last = m <= 1 ? std::optional<Int>(1) : m <= 16 ? std::optional<Int>(16) : std::nullopt;
  return (!last || rows->low <= *last) && (!rows->high || first <= *rows->high);
}

inline std::string bucket_text(const Bucket& bucket) {
  std::string text;
  for (const auto& [dim, interval] : bucket)
    text += (text.empty() ? "" : ", ") + dim + " " + std::to_string(interval.low) + "…" +
            (interval.high ? std::to_string(*interval.high) : "");
  return text;
}

inline std::vector<std::pair<const Entry*, std::string>> candidates(const Section& section, const Match& match,
                                                                    const Dims& dims, Level level) {
  std::vector<std::pair<const Entry*, std::string>> order, found;
  if (level != Level::vendor) {
    const Entry* nearest = nullptr;
    double least = 0;
    for (const Entry& entry : section.entries) {
      if (!entry.bucket || !same(entry.match, match)) continue;
      const double off = distance(*entry.bucket, dims);
      if (off == 0) order.push_back({&entry, "its bucket " + bucket_text(*entry.bucket) + " holds the sizes"});
      if (same_regime(*entry.bucket, dims) &&
          (nearest == nullptr || std::tie(off, entry.id) < std::tie(least, nearest->id))) {
        nearest = &entry;
        least = off;
      }
    }
    if (nearest != nullptr && least <= max_distance) {
      std::array<char, 32> factor{};
      std::snprintf(factor.data(), factor.size(), "%.3g", std::exp2(least));
      order.push_back(
          {nearest, "nearest bucket " + bucket_text(*nearest->bucket) + ", a factor " + factor.data() + " off"});
    }
  }
  const Entry* usual = by_id(section, section.default_id);
  if (same(usual->match, match) && (!usual->bucket || same_regime(*usual->bucket, dims)))
    order.push_back({usual, "the document's default"});
  std::set<std::string> seen;
  for (const auto& [entry, how] : order) {
    if (seen.insert(entry->id).second) found.push_back({entry, how});
    for (const std::string& other : entry->alternates)
      if (seen.insert(other).second) found.push_back({by_id(section, other), "alternate of \"" + entry->id + "\""});
  }
  return found;
}

inline std::vector<std::string> dims_of(const Section& section) {
  std::vector<std::string> found;
  for (const Arg& arg : section.args)
    if (arg.role == "dim") found.push_back(arg.name);
  return found;
}

// What an entry for this workload would say: dims that the family fixes stand among the options, options that are off
// do not.
inline Match match_of(const Workload& workload, const std::vector<std::string>& fixed) {
  Match match{workload.weights, workload.dtypes, {}};
  for (const auto& option : workload.options)
    if (!(option.second.is_boolean() && !option.second.get<bool>()) &&
        std::find(fixed.begin(), fixed.end(), option.first) == fixed.end())
      match.options.push_back(option);
  for (const std::string& dim : fixed) match.options.push_back({dim, Json(workload.dims.at(dim))});
  return match;
}

// Dims that stand among options in a document that came without a bundle.
inline std::vector<std::string> fixed_of(const Section& section) {
  std::vector<std::string> found;
  for (const std::string& dim : dims_of(section))
    if (std::any_of(section.entries.begin(), section.entries.end(),
                    [&](const Entry& e) { return lookup(e.match.options, dim) != nullptr; }))
      found.push_back(dim);
  return found;
}

inline void check_dims(const Workload& workload, const std::vector<std::string>& wanted) {
  bool good = workload.dims.size() == wanted.size();
  std::string all;
  for (const std::string& dim : wanted) {
    const auto found = workload.dims.find(dim);
    good = good && found != workload.dims.end() && found->second >= 1 && found->second <= INT32_MAX;
    all += (all.empty() ? "" : ", ") + dim;
  }
  if (!good) throw Error(workload.family + " needs " + all + ", each from 1 to 2147483647; give them");
}

}  // namespace detail

// The entry to run: of the nearest document, at these sizes; alternates, defaults and at last the built-in one follow.
// Throws Error where the family has no kernel for this workload here at all.
inline Selection select(const std::vector<const Bundle*>& bundles, const Workload& workload, const Device& device,
                        const Ask& ask = {}) {
  struct Ranked {
    Level level;
    bool edited;
    double unlike;
    std::size_t index;
  };
  Selection chosen;
  const Family* ours = nullptr;
  std::vector<Ranked> ranked;
  for (std::size_t i = 0; i < bundles.size(); ++i) {
    const Document& document = bundles[i]->document;
    if (const auto found = bundles[i]->families.find(workload.family);
        ours == nullptr && found != bundles[i]->families.end())
      ours = &found->second;
    const double difference = detail::unlike(document.device, device);
    const Level level = detail::level_of(document, device, difference);
    if (level == Level::built_in)
      chosen.notes.push_back("document of " + document.device.model + ": for another vendor (" +
                             document.device.vendor + ")");
    else
      ranked.push_back({level, document.edited, difference, i});
  }
  std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return std::tie(a.level, a.edited, a.unlike, a.index) < std::tie(b.level, b.edited, b.unlike, b.index);
  });
  if (ours != nullptr) detail::check_dims(workload, ours->dims);
  for (const Ranked& each : ranked) {
    const Document& document = bundles[each.index]->document;
    const std::string label = "document of " + document.device.model + " (" + name_of(each.level) + "): ";
    const auto found = document.kernels.find(workload.family);
    if (found == document.kernels.end()) {
      chosen.notes.push_back(label + "has no kernel " + workload.family);
      continue;
    }
    const Section& section = found->second;
    if ((ask.abi_version != 0 && section.abi_version != ask.abi_version) ||
        (ours != nullptr && (section.abi_version != ours->abi_version || section.args != ours->args))) {
      chosen.notes.push_back(label + workload.family + " speaks another ABI; tune again");
      continue;
    }
    if (ours == nullptr) detail::check_dims(workload, detail::dims_of(section));
    const Match match = detail::match_of(workload, ours != nullptr ? ours->fixed : detail::fixed_of(section));
    for (const auto& [entry, how] : detail::candidates(section, match, workload.dims, each.level)) {
      std::string reason = detail::reason_against(*entry, section, workload.dims, device, ask.predicted);
      if (reason.empty() && ask.veto) reason = ask.veto(*bundles[each.index], *entry);
      chosen.notes.push_back(label + "entry \"" + entry->id + "\" (" + how + ") " +
                             (reason.empty() ? "taken" : "not used: " + reason));
      if (!reason.empty()) continue;
      chosen.entry = entry;
      chosen.bundle = bundles[each.index];
      chosen.level = each.level;
      chosen.how = how;
      return chosen;
    }
  }
  std::string reason = "no bundle has a built-in default for it; tune and bundle it";
  for (const Bundle* bundle : bundles) {
    const auto family = bundle->families.find(workload.family);
    if (family == bundle->families.end()) continue;
    const Match match = detail::match_of(workload, family->second.fixed);
    for (const auto& [served, tree] : family->second.defaults) {
      if (!detail::same(served, match)) continue;
      const Json& id = detail::leaf(tree, workload.dims, device);
      const auto built_in =
          id.is_string() ? family->second.built_in.find(id.get<std::string>()) : family->second.built_in.end();
      if (built_in == family->second.built_in.end()) continue;
      reason = detail::broken_rule(built_in->second, workload.dims, device);
      if (reason.empty() && ask.veto) reason = ask.veto(*bundle, built_in->second);
      if (!reason.empty()) continue;
      chosen.notes.push_back("no document serves this: the built-in safe default");
      chosen.entry = &built_in->second;
      chosen.bundle = bundle;
      chosen.how = "safe on every device";
      return chosen;
    }
  }
  throw Error(workload.family + " cannot run here: " + reason);
}

// Which kernel serves an operation ("matmul") at these sizes, "" = the document does not say.
inline std::string route(const Document& document, const std::string& op, const std::string& weights,
                         const Dims& dims) {
  const auto routes = document.ops.find(op);
  if (routes == document.ops.end()) return "";
  for (const Route& each : routes->second) {
    const bool within = std::all_of(each.bucket.begin(), each.bucket.end(), [&](const auto& item) {
      const auto dim = dims.find(item.first);
      return dim != dims.end() && dim->second >= item.second.low &&
             (!item.second.high || dim->second <= *item.second.high);
    });
    if (within && (each.weights.empty() || each.weights == weights)) return each.kernel;
  }
  return "";
}

// After building: the work-group to launch with, given CL_KERNEL_WORK_GROUP_SIZE. Empty = leave it to the driver.
// Throws Error where the entry's own is too large: its source is made for that size, and an alternate must take its
// place.
inline std::vector<Int> clamp(const Launch& launch, Int kernel_work_group) {
  Int work_items = 1;
  for (const Int size : launch.local)
    if (__builtin_mul_overflow(work_items, size, &work_items)) work_items = INT64_MAX;
  if (!launch.local.empty() && work_items > kernel_work_group)
    throw Error("kernel " + launch.entry + " was built for at most " + std::to_string(kernel_work_group) +
                " work-items, its entry wants " + std::to_string(work_items) + "; take an alternate");
  return launch.local;
}

// The facts of a device from JSON shaped like a document's `device`.
inline Device device_from(const std::string& json_text) {
  const Json json = detail::parse(json_text);
  return detail::device(detail::Node(json, "$"));
}

}  // namespace kiln
