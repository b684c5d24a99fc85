// Answers queries in batches, for tests and for asking without an engine.
//
//   kiln-query select BUNDLE-OR-DOCUMENT… < queries   one JSON object a line: family, dims, dtypes, weights, options,
//                                                     device (as in a document; absent = the first document's),
//                                                     predicted; gives a line of JSON each
//   kiln-query load < paths                           one path of a document (.json) or bundle a line; gives "ok",
//                                                     "edited" or the reason; a bundle's rules are all asked once
#include <cstring>
#include <iostream>

#include "kiln.hpp"

namespace {

using kiln::Json;

kiln::Workload workload_from(const kiln::detail::Node& node) {
  kiln::Workload found;
  found.family = node.at("family").name();
  for (const auto& [dim, size] : node.at("dims").items()) found.dims[dim] = size.positive();
  found.dtypes = kiln::detail::dtypes(node.at("dtypes"));
  found.weights = kiln::detail::weights(node.at("weights"));
  found.options = node.at("options").scalars();
  return found;
}

Json answer(const std::vector<const kiln::Bundle*>& bundles, const std::string& line) {
  const Json json = kiln::detail::parse(line);
  const kiln::detail::Node root(json, "$");
  const kiln::Workload workload = workload_from(root);
  kiln::Device device = bundles.front()->document.device;
  if (root.has("device")) device = kiln::detail::device(root.at("device"));
  kiln::Ask ask;
  ask.predicted = root.has("predicted") && root.at("predicted").value() == Json(true);
  const kiln::Selection chosen = kiln::select(bundles, workload, device, ask);
  Json launches = Json::array(), scratch = Json::object(), layout = Json::object();
  for (const kiln::Launch& launch : chosen.entry->launches)
    launches.push_back({{"entry", launch.entry}, {"grid", kiln::grid(launch, workload.dims)}, {"local", launch.local}});
  for (const kiln::Scratch& each : chosen.entry->scratch)
    scratch[each.name] = kiln::evaluate(each.bytes, workload.dims);
  for (const auto& [tensor, name] : chosen.entry->layout) layout[tensor] = name;
  return {{"entry", chosen.entry->id},
          {"level", kiln::name_of(chosen.level)},
          {"how", chosen.how},
          {"source_sha256", chosen.entry->source_sha256},
          {"build_options", chosen.entry->build_options},
          {"launches", launches},
          {"scratch", scratch},
          {"layout", layout}};
}

bool is_document(const std::string& path) { return path.size() > 5 && path.compare(path.size() - 5, 5, ".json") == 0; }

int select_all(int count, char** paths) {
  std::vector<kiln::Bundle> bundles;
  for (int i = 0; i < count; ++i) {
    const std::string path = paths[i];
    bundles.push_back(is_document(path) ? kiln::load_document(path) : kiln::load_bundle(path));
  }
  std::vector<const kiln::Bundle*> all;
  for (const kiln::Bundle& bundle : bundles) all.push_back(&bundle);
  for (std::string line; std::getline(std::cin, line);) {
    Json out;
    try {
      out = answer(all, line);
    } catch (const kiln::Error& error) {
      out = {{"error", error.what()}};
    }
    std::cout << out.dump() << '\n';
  }
  return 0;
}

// Every tree of a bundle followed once, at 256 of everything: throws Error where one is not as it should be.
void ask_all(const kiln::Bundle& bundle) {
  const kiln::Device& device = bundle.document.device;
  for (const auto& [name, family] : bundle.families) {
    kiln::Dims dims;
    for (const std::string& dim : family.dims) dims[dim] = 256;
    for (const auto& item : family.defaults) kiln::detail::leaf(item.second, dims, device);
    for (const auto& item : family.built_in) kiln::detail::broken_rule(item.second, dims, device);
    for (const kiln::Entry& entry : bundle.document.kernels.at(name).entries) {
      kiln::detail::broken_rule(entry, dims, device);
      bundle.source(entry);
    }
  }
}

int load_all() {
  for (std::string path; std::getline(std::cin, path);) {
    try {
      const kiln::Bundle bundle = is_document(path) ? kiln::load_document(path) : kiln::load_bundle(path);
      ask_all(bundle);
      std::cout << (bundle.document.edited ? "edited\n" : "ok\n");
    } catch (const kiln::Error& error) {
      std::string text = error.what();
      std::replace(text.begin(), text.end(), '\n', ' ');
      std::cout << text << '\n';
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc > 2 && std::strcmp(argv[1], "select") == 0) return select_all(argc - 2, argv + 2);
  if (argc == 2 && std::strcmp(argv[1], "load") == 0) return load_all();
  std::cerr << "usage: kiln-query select BUNDLE-OR-DOCUMENT… < queries | kiln-query load < paths\n";
  return 2;
} catch (const kiln::Error& error) {
  std::cerr << "kiln-query: " << error.what() << '\n';
  return 1;
}
